//! Scopes: which objects a quota counts, beside their resource.

use std::fmt;

use meta::labels::{self, Operator};
use serde::Deserialize;

/// Why nobody can say whether an object is in a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse and convert selector: {0}")]
pub struct ScopeError(String);

/// `scopeSelector.matchExpressions[*]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Requirement {
    pub scope_name: String,
    pub operator: String,
    pub values: Vec<String>,
}

impl Requirement {
    /// What a quota's `scopes` mean.
    pub fn exists(scope: &str) -> Self {
        Self {
            scope_name: scope.to_owned(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        }
    }

    fn as_label(&self) -> Result<labels::Requirement, ScopeError> {
        let operator = match self.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                let why = format!("{other:?} is not a valid scope selector operator");
                return Err(ScopeError(why));
            }
        };
        labels::Requirement::new(&*self.scope_name, operator, self.values.clone())
            .map_err(|e| ScopeError(e.to_string()))
    }
}

/// As messages show it.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(" ");
        write!(f, "{{{} {} [{values}]}}", self.scope_name, self.operator)
    }
}

/// What decides the scopes of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Facts {
    /// Of a kind that is in no scope.
    #[default]
    None,
    Pod {
        /// It has a deadline.
        terminating: bool,
        best_effort: bool,
        priority_class: String,
        /// Its affinity looks at other namespaces.
        cross_namespaces: bool,
    },
    VolumeClaim {
        /// The VolumeAttributesClasses that it has, had, or will have.
        classes: Vec<String>,
    },
}

impl Facts {
    pub(super) fn are_in(&self, scope: &Requirement) -> Result<bool, ScopeError> {
        let exists = scope.operator == "Exists";
        Ok(match (self, scope.scope_name.as_str()) {
            (Facts::Pod { terminating, .. }, "Terminating") => *terminating,
            (Facts::Pod { terminating, .. }, "NotTerminating") => !*terminating,
            (Facts::Pod { best_effort, .. }, "BestEffort") => *best_effort,
            (Facts::Pod { best_effort, .. }, "NotBestEffort") => !*best_effort,
            (Facts::Pod { priority_class, .. }, "PriorityClass") => {
                let class = Some(priority_class.as_str()).filter(|c| !c.is_empty());
                match exists {
                    true => class.is_some(),
                    false => scope.as_label()?.matches(class),
                }
            }
            (
                Facts::Pod {
                    cross_namespaces, ..
                },
                "CrossNamespacePodAffinity",
            ) => *cross_namespaces,
            (Facts::VolumeClaim { classes }, "VolumeAttributesClass") => match exists {
                true => !classes.is_empty(),
                false => {
                    let label = scope.as_label()?;
                    match classes.as_slice() {
                        [] => label.matches(None),
                        classes => classes.iter().any(|c| label.matches(Some(c))),
                    }
                }
            },
            _ => false,
        })
    }
}
