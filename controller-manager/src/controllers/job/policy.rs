//! What a Job's policies say: which pod failures count (KEP-3329), and when some successes are
//! enough (KEP-3998).

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, SuccessPolicy,
};

use super::indexes::Indexes;
use crate::kinds::{ContainerStatus, Pod};

/// What a failed pod means for its Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    Counts,
    /// It counts, because a rule says so.
    CountsByRule,
    Ignored,
    /// Its index has failed, whatever its limit.
    FailsIndex,
    /// The whole Job has failed, with this message.
    FailsJob(String),
}

impl Failure {
    /// The action of the rule that decided, if one did.
    pub fn action(&self) -> Option<&'static str> {
        match self {
            Self::Counts => None,
            Self::CountsByRule => Some("Count"),
            Self::Ignored => Some("Ignore"),
            Self::FailsIndex => Some("FailIndex"),
            Self::FailsJob(_) => Some("FailJob"),
        }
    }
}

/// The first rule that matches decides.
pub fn failure(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Failure {
    let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
    for (i, rule) in policy.into_iter().flat_map(|p| &p.rules).enumerate() {
        let action = rule.action.as_str();
        let why = if let Some(codes) = &rule.on_exit_codes {
            let statuses = &pod.status.container_statuses;
            let found = matching(statuses, codes)
                .or_else(|| matching(&pod.status.init_container_statuses, codes));
            found.map(|(container, code)| {
                format!("Container {container} for pod {name} failed with exit code {code} matching {action} rule at index {i}")
            })
        } else {
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            let mut conditions = pod.status.conditions.iter();
            let found = conditions.find(|c| {
                patterns.iter().any(|p| {
                    *p.type_ == *c.r#type && p.status.as_deref().unwrap_or("True") == &*c.status
                })
            });
            found.map(|c| {
                format!(
                    "Pod {name} has condition {} matching {action} rule at index {i}",
                    c.r#type
                )
            })
        };
        match (why, action) {
            (Some(_), "Ignore") => return Failure::Ignored,
            (Some(_), "FailIndex") => return Failure::FailsIndex,
            (Some(_), "Count") => return Failure::CountsByRule,
            (Some(message), "FailJob") => return Failure::FailsJob(message),
            _ => {}
        }
    }
    Failure::Counts
}

fn matching<'a>(
    statuses: &'a [ContainerStatus],
    codes: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    statuses.iter().find_map(|s| {
        let code = s.state.terminated.as_ref()?.exit_code;
        let listed = codes.values.contains(&code);
        let meant = codes
            .container_name
            .as_deref()
            .is_none_or(|n| n == &*s.name);
        let hit = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (meant && code != 0 && hit).then_some((&*s.name, code))
    })
}

/// Whether a rule is met; says which.
pub fn success(
    policy: Option<&SuccessPolicy>,
    completions: usize,
    succeeded: &Indexes,
) -> Option<String> {
    if succeeded.total() == 0 {
        return None;
    }
    let met = policy?.rules.iter().position(|rule| {
        let enough = |n: usize| {
            rule.succeeded_count
                .is_some_and(|c| n >= usize::try_from(c).unwrap_or(0))
        };
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let have = wanted.common(succeeded);
                wanted.total() > 0 && (have == wanted.total() || enough(have))
            }
            None => enough(succeeded.total()),
        }
    });
    met.map(|i| format!("Matched rules at index {i}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exit_codes_and_conditions() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42], "containerName": "c"}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1]}}]}))
        .unwrap();
        let pod = |code: i32, disrupted: bool| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"namespace": "d", "name": "p"},
                "status": {"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}],
                    "conditions": [{"type": "DisruptionTarget", "status": if disrupted { "True" } else { "False" }}]},
            }))
            .unwrap()
        };
        let message =
            "Container c for pod d/p failed with exit code 42 matching FailJob rule at index 0";
        assert_eq!(
            failure(Some(&policy), &pod(42, false)),
            Failure::FailsJob(message.into())
        );
        assert_eq!(failure(Some(&policy), &pod(1, true)), Failure::Ignored);
        assert_eq!(failure(Some(&policy), &pod(2, false)), Failure::FailsIndex);
        assert_eq!(failure(Some(&policy), &pod(1, false)), Failure::Counts);
        assert_eq!(failure(None, &pod(42, false)), Failure::Counts);
    }

    #[test]
    fn success_rules() {
        let policy: SuccessPolicy = serde_json::from_value(json!({"rules": [
            {"succeededIndexes": "0-1"}, {"succeededIndexes": "2-5", "succeededCount": 2}]}))
        .unwrap();
        let met = |text: &str| success(Some(&policy), 10, &Indexes::parse(text, 10));
        assert_eq!(met("0,1"), Some("Matched rules at index 0".to_owned()));
        assert_eq!(met("1,3,5"), Some("Matched rules at index 1".to_owned()));
        assert_eq!(met("1,3"), None);
        assert_eq!(met(""), None);
    }
}
