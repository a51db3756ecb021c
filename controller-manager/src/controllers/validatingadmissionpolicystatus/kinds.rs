//! Which kinds the rules of a policy match, as far as they can be said one by one.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    NamedRuleWithOperations, ValidatingAdmissionPolicy,
};
use meta::GroupVersionKind;

use crate::discovery::Resources;

/// Of how many kinds of one rule expressions are checked.
const MOST: usize = 10;

/// The kinds that a policy matches.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// In the order of groups, versions and kinds.
    pub kinds: BTreeSet<GroupVersionKind>,
    /// Whether rules name resources that are not served.
    pub unknown: bool,
}

/// Rules with wildcards say nothing of kinds, and neither do subresources.
pub fn matched(policy: &ValidatingAdmissionPolicy, served: &Resources) -> Matched {
    let mut matched = Matched::default();
    let spec = policy.spec.as_ref();
    let constraints = spec.and_then(|spec| spec.match_constraints.as_ref());
    let rules = constraints.and_then(|constraints| constraints.resource_rules.as_ref());
    for rule in rules.into_iter().flatten() {
        if !of_rule(rule, served, &mut matched) {
            break;
        }
    }
    matched
}

/// Whether further rules are looked at: a rule that matches many kinds is the last one.
fn of_rule(rule: &NamedRuleWithOperations, served: &Resources, matched: &mut Matched) -> bool {
    let groups = sorted(rule.api_groups.as_ref(), "");
    let versions = sorted(rule.api_versions.as_ref(), "");
    let resources = sorted(rule.resources.as_ref(), "*/");
    if [&groups, &versions]
        .iter()
        .any(|names| names.iter().any(|n| n.contains('*')))
    {
        return true;
    }
    let mut count = 0;
    for group in &groups {
        for version in &versions {
            for resource in &resources {
                let mut found = false;
                for kind in served.kinds_of(group, version, resource) {
                    found = true;
                    matched.kinds.insert(kind);
                    count += 1;
                    if count == MOST {
                        return false;
                    }
                }
                matched.unknown |= !found;
            }
        }
    }
    true
}

/// The names without those that have one of these characters.
fn sorted<'a>(names: Option<&'a Vec<String>>, without: &str) -> Vec<&'a str> {
    let names = names.into_iter().flatten().map(String::as_str);
    let mut names: Vec<&str> = names
        .filter(|name| !name.contains(|c| without.contains(c)))
        .collect();
    names.sort_unstable();
    names
}
