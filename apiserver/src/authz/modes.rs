//! `--authorization-mode`: which authorizers are asked, in which order.
//!
//! What must not be here: how they decide.

use std::sync::Arc;

use component::features::FeatureGates;
use prometheus::{HistogramVec, IntCounter, IntCounterVec};

use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use super::{Attributes, Authorizer, Decision, Rules, bootstrap};
use crate::authn::{MASTERS, User};
use crate::lookup::Observer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Rbac,
    Node,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    #[error("authorization-mode {0:?} is not a valid mode")]
    Unknown(String),
    #[error("authorization-mode {0:?} has mode specified more than once")]
    Repeated(Mode),
    #[error("authorization-mode {0:?} is not supported yet by this server: leave it out")]
    Unsupported(&'static str),
    #[error("at least one authorization-mode must be passed")]
    None,
}

impl Mode {
    /// Its type and name, as upstream's metrics have them.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Mode::AlwaysAllow => ("AlwaysAllow", "alwaysallow"),
            Mode::AlwaysDeny => ("AlwaysDeny", "alwaysdeny"),
            Mode::Rbac => ("RBAC", "rbac"),
            Mode::Node => ("Node", "node"),
        }
    }

    /// Reads the flag's list.
    pub fn parse_list<S: AsRef<str>>(names: &[S]) -> Result<Vec<Mode>, ModeError> {
        let mut modes = Vec::new();
        for name in names {
            let mode = match name.as_ref() {
                "AlwaysAllow" => Mode::AlwaysAllow,
                "AlwaysDeny" => Mode::AlwaysDeny,
                "RBAC" => Mode::Rbac,
                "Node" => Mode::Node,
                "ABAC" => return Err(ModeError::Unsupported("ABAC")),
                "Webhook" => return Err(ModeError::Unsupported("Webhook")),
                other => return Err(ModeError::Unknown(other.to_owned())),
            };
            if modes.contains(&mode) {
                return Err(ModeError::Repeated(mode));
            }
            modes.push(mode);
        }
        if modes.is_empty() {
            return Err(ModeError::None);
        }
        Ok(modes)
    }
}

/// The server's authorizer.
pub struct Authz {
    /// With how often each has allowed something.
    modes: Vec<(Step, IntCounter)>,
    /// Also kept when RBAC is not among the modes: escalation checks need it only then.
    rbac: Option<Arc<Rbac>>,
    node: Option<Arc<NodeAuthorizer>>,
}

enum Step {
    Allow,
    Deny,
    Ask(Arc<dyn Authorizer>),
}

/// Joins the modes; `gates` say which rules nodes have. `decisions` is labelled with type,
/// name and decision, `graph_actions` (seconds) with the operation. Feed [`Authz::observers`] from the watch cache before serving.
pub fn build(
    modes: &[Mode],
    gates: &FeatureGates,
    decisions: &IntCounterVec,
    graph_actions: &HistogramVec,
) -> Authz {
    let mut authz = Authz {
        modes: Vec::new(),
        rbac: None,
        node: None,
    };
    for mode in modes {
        let (kind, name) = mode.names();
        let allowed = decisions.with_label_values(&[kind, name, "allowed"]);
        let step = match mode {
            Mode::AlwaysAllow => Step::Allow,
            Mode::AlwaysDeny => Step::Deny,
            Mode::Rbac => Step::Ask(authz.rbac.insert(Arc::default()).clone()),
            Mode::Node => {
                let rules = bootstrap::node_rules(gates);
                let node = Arc::new(NodeAuthorizer::new(rules, gates, graph_actions));
                Step::Ask(authz.node.insert(node).clone())
            }
        };
        authz.modes.push((step, allowed));
    }
    authz
}

impl Authz {
    /// What must follow the watch cache.
    pub fn observers(&self) -> Vec<Arc<dyn Observer>> {
        let rbac = self.rbac.clone().map(|r| r as Arc<dyn Observer>);
        let node = self.node.clone().map(|n| n as Arc<dyn Observer>);
        rbac.into_iter().chain(node).collect()
    }

    /// Present when RBAC is among the modes: then the default roles are to be reconciled
    /// ([`bootstrap`]) and writes of roles checked ([`super::rbac::escalation`]).
    pub fn rbac(&self) -> Option<&Rbac> {
        self.rbac.as_deref()
    }
}

impl Authorizer for Authz {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons: Vec<String> = Vec::new();
        for (step, allowed) in &self.modes {
            let decision = match step {
                Step::Allow => Decision::Allow(String::new()),
                Step::Deny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
                Step::Ask(authorizer) => authorizer.authorize(attributes),
            };
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => {
                    allowed.inc();
                    return decided;
                }
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let mut all = Rules::default();
        let mut errors: Vec<String> = Vec::new();
        let everything = |rules: &mut Rules| {
            let star = || vec!["*".to_owned()];
            rules
                .resource
                .push(k8s_openapi::api::authorization::v1::ResourceRule {
                    verbs: star(),
                    api_groups: Some(star()),
                    resources: Some(star()),
                    resource_names: None,
                });
            rules
                .non_resource
                .push(k8s_openapi::api::authorization::v1::NonResourceRule {
                    verbs: star(),
                    non_resource_urls: Some(star()),
                });
        };
        // That masters may do everything is no rule, and upstream lists it nowhere.
        for (step, _) in &self.modes {
            let rules = match step {
                Step::Allow => {
                    everything(&mut all);
                    continue;
                }
                Step::Deny => continue,
                Step::Ask(authorizer) => authorizer.rules_for(user, namespace),
            };
            all.resource.extend(rules.resource);
            all.non_resource.extend(rules.non_resource);
            all.incomplete |= rules.incomplete;
            errors.extend(rules.evaluation_error);
        }
        all.evaluation_error = match errors.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("[{}]", many.join(", "))),
        };
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(user: &User) -> Attributes<'_> {
        Attributes {
            name: "n",
            ..Attributes::of_resource(user, "get", "", "nodes")
        }
    }

    #[test]
    fn masters_may_do_anything_in_every_mode() {
        let root = User {
            groups: vec![MASTERS.into()],
            ..User::default()
        };
        for mode in [Mode::AlwaysDeny, Mode::Rbac, Mode::Node] {
            let decisions = IntCounterVec::new(
                prometheus::Opts::new("decisions", "x"),
                &["type", "name", "decision"],
            );
            let authz = build(
                &[mode],
                &FeatureGates::default(),
                &decisions.unwrap(),
                &crate::authz::graph_actions().unwrap(),
            );
            assert!(matches!(authz.authorize(&ask(&root)), Decision::Allow(_)));
            let nobody = User::default();
            assert!(!matches!(
                authz.authorize(&ask(&nobody)),
                Decision::Allow(_)
            ));
        }
    }

    #[test]
    fn modes_are_validated() {
        assert_eq!(
            Mode::parse_list(&["Node", "RBAC"]),
            Ok(vec![Mode::Node, Mode::Rbac])
        );
        assert!(Mode::parse_list(&["rbac"]).is_err());
        assert!(Mode::parse_list(&["RBAC", "RBAC"]).is_err());
        assert!(Mode::parse_list::<&str>(&[]).is_err());
    }
}
