//! RBAC rules: whether one allows a request, and whether some cover others.
//!
//! What must not be here: who has which rules (`rbac/mod.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::authz::Attributes;

/// `rbac.authorization.k8s.io/v1` `PolicyRule`, fields in the API's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    #[serde(deserialize_with = "null_is_empty")]
    pub verbs: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub api_groups: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub resources: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub resource_names: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

const ALL: &str = "*";

fn has(set: &[String], element: &str) -> bool {
    set.iter().any(|e| e == element)
}

fn has_or_all(set: &[String], element: &str) -> bool {
    set.iter().any(|e| e == element || e == ALL)
}

/// Whether `pattern` is `path` or ends in `*` and begins it.
fn url_matches(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'))
}

impl PolicyRule {
    /// Whether this rule allows the request.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self
                .non_resource_urls
                .iter()
                .any(|url| url_matches(url, attributes.path));
        }
        has_or_all(&self.api_groups, attributes.group)
            && self
                .resources
                .iter()
                .any(|r| resource_matches(r, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, attributes.name))
    }

    /// Whether this rule grants all that an atomic rule does.
    fn covers(&self, atom: &Atom<'_>) -> bool {
        if !has_or_all(&self.verbs, atom.verb) {
            return false;
        }
        match atom.what {
            What::Url(path) => self.non_resource_urls.iter().any(|p| url_matches(p, path)),
            What::Resource {
                group,
                resource,
                name,
            } => {
                has_or_all(&self.api_groups, group)
                    && (has_or_all(&self.resources, resource)
                        || resource.split_once('/').is_some_and(|(_, sub)| {
                            self.resources
                                .iter()
                                .any(|r| r.strip_prefix("*/") == Some(sub))
                        }))
                    && (self.resource_names.is_empty()
                        || name.is_some_and(|n| has(&self.resource_names, n)))
            }
        }
    }

    /// How many things on which it grants a verb it names.
    pub fn breadth(&self) -> usize {
        let resources = [
            self.resources.len(),
            self.verbs.len(),
            self.resource_names.len().max(1),
        ];
        resources
            .into_iter()
            .fold(self.api_groups.len(), usize::saturating_mul)
            .saturating_add(self.non_resource_urls.len() * self.verbs.len())
    }

    fn atoms(&self) -> impl Iterator<Item = Atom<'_>> {
        let names = || {
            let none = self.resource_names.is_empty().then_some(None);
            none.into_iter()
                .chain(self.resource_names.iter().map(|n| Some(n.as_str())))
        };
        let resources = self.api_groups.iter().flat_map(move |group| {
            self.resources.iter().flat_map(move |resource| {
                self.verbs.iter().flat_map(move |verb| {
                    names().map(move |name| Atom {
                        verb,
                        what: What::Resource {
                            group,
                            resource,
                            name,
                        },
                    })
                })
            })
        });
        let urls = self.non_resource_urls.iter().flat_map(|url| {
            self.verbs.iter().map(|verb| Atom {
                verb,
                what: What::Url(url),
            })
        });
        resources.chain(urls)
    }
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    rule.split_once('/')
        .is_some_and(|(r, s)| s == subresource && (r == resource || r == ALL))
}

/// A rule of one verb on one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Atom<'a> {
    verb: &'a str,
    what: What<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What<'a> {
    Resource {
        group: &'a str,
        resource: &'a str,
        /// `None`: every name.
        name: Option<&'a str>,
    },
    Url(&'a str),
}

impl Atom<'_> {
    fn to_rule(self) -> PolicyRule {
        let one = |s: &str| vec![s.to_owned()];
        let mut rule = PolicyRule {
            verbs: one(self.verb),
            ..PolicyRule::default()
        };
        match self.what {
            What::Url(url) => rule.non_resource_urls = one(url),
            What::Resource {
                group,
                resource,
                name,
            } => {
                rule.api_groups = one(group);
                rule.resources = one(resource);
                rule.resource_names = name.map(one).unwrap_or_default();
            }
        }
        rule
    }
}

/// What `wanted` grants and `held` do not, as rules of one verb on one thing.
pub fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(PolicyRule::atoms)
        .filter(|atom| !held.iter().any(|rule| rule.covers(atom)))
        .map(Atom::to_rule)
        .collect()
}

/// The rules as an error message lists them: verbs on the same resource joined, one line
/// each, sorted.
pub fn describe(rules: &[PolicyRule]) -> String {
    let mut verbs: BTreeMap<(String, String, Option<String>), Vec<String>> = BTreeMap::new();
    let mut lines = BTreeSet::new();
    for rule in rules {
        match (rule.api_groups.as_slice(), rule.resources.as_slice()) {
            ([group], [resource]) if rule.resource_names.len() <= 1 => {
                let name = rule.resource_names.first().cloned();
                let known = verbs
                    .entry((group.clone(), resource.clone(), name))
                    .or_default();
                known.extend(rule.verbs.iter().cloned());
            }
            _ => {
                lines.insert(rule.to_string());
            }
        }
    }
    for ((group, resource, name), verbs) in verbs {
        let rule = PolicyRule {
            verbs,
            api_groups: vec![group],
            resources: vec![resource],
            resource_names: name.into_iter().collect(),
            ..PolicyRule::default()
        };
        lines.insert(rule.to_string());
    }
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// As upstream's messages show a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        let mut first = true;
        for (name, list) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ] {
            if list.is_empty() {
                continue;
            }
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            write!(f, "{name}:{}", go_list(list))?;
        }
        f.write_str("}")
    }
}

/// Go's `%q` of a list: quoted, parted by spaces.
pub fn go_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn rule(verbs: &str, groups: &str, resources: &str) -> PolicyRule {
        let list = |s: &str| s.split(' ').map(str::to_owned).collect();
        PolicyRule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            ..PolicyRule::default()
        }
    }

    fn named(mut rule: PolicyRule, name: &str) -> PolicyRule {
        rule.resource_names = vec![name.into()];
        rule
    }

    #[test]
    fn subresources_match_by_name_or_star() {
        assert!(resource_matches("pods/log", "pods", "log"));
        assert!(resource_matches("*/scale", "deployments", "scale"));
        assert!(resource_matches("*", "pods", "log"));
        assert!(!resource_matches("pods", "pods", "log"));
        assert!(!resource_matches("pods/log", "pods", ""));
        assert!(!resource_matches("*/scale", "scale", ""));
    }

    #[test]
    fn coverage_breaks_rules_into_atoms() {
        let held = [rule("get list", "", "pods secrets"), rule("*", "apps", "*")];
        assert!(uncovered(&held, &[rule("get", "", "pods")]).is_empty());
        assert!(uncovered(&held, &[rule("delete", "apps", "deployments/scale")]).is_empty());
        assert!(uncovered(&held, &[named(rule("get", "", "secrets"), "a")]).is_empty());
        let missing = uncovered(&held, &[rule("get watch update", "", "pods")]);
        assert_eq!(
            describe(&missing),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "update"]}"#
        );
    }

    #[test]
    fn a_named_right_does_not_cover_all_names() {
        let held = [named(rule("get", "", "secrets"), "a")];
        assert_eq!(uncovered(&held, &[rule("get", "", "secrets")]).len(), 1);
        assert_eq!(
            uncovered(&held, &[named(rule("get", "", "secrets"), "b")]).len(),
            1
        );
    }

    #[test]
    fn a_star_subresource_covers_only_subresources() {
        let held = [rule("get", "*", "*/scale")];
        assert!(uncovered(&held, &[rule("get", "apps", "deployments/scale")]).is_empty());
        assert_eq!(
            uncovered(&held, &[rule("get", "apps", "deployments")]).len(),
            1
        );
    }

    #[test]
    fn urls_match_by_prefix() {
        assert!(url_matches("/api/*", "/api/v1"));
        assert!(url_matches("*", "/x"));
        assert!(!url_matches("/api/*", "/api"));
        assert!(!url_matches("/healthz", "/healthz/ping"));
    }

    #[test]
    fn reads_and_writes_the_api_form() {
        let json = r#"{"verbs":["get"],"nonResourceURLs":["/x"]}"#;
        let rule: PolicyRule = serde_json::from_str(json).unwrap();
        assert_eq!(rule.non_resource_urls, ["/x"]);
        assert_eq!(serde_json::to_string(&rule).unwrap(), json);
        let rule: PolicyRule = serde_json::from_str(r#"{"verbs":null}"#).unwrap();
        assert_eq!(rule, PolicyRule::default());
    }
}
