//! legacy-serviceaccount-token-cleaner-controller: tokens that were made for accounts unasked,
//! and that nobody has used for long, are marked, and deleted long after that (KEP-2799).

use std::collections::HashSet;
use std::time::Duration;

use client::{Api, DeleteOptions, ListOptions, Object as _, Patch, PatchOptions};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod as FullPod, Secret, ServiceAccount};
use serde_json::json;

use super::{NAME, UID, annotation, tokens};
use crate::context::{Context, Run};

const PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
/// Where the API server writes since when it has watched the use of tokens.
const TRACKING: (&str, &str, &str) = (
    "kube-system",
    "kube-apiserver-legacy-service-account-token-tracking",
    "since",
);
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What to do about a token.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Keep,
    /// It is not taken any more, but still there in case it is missed.
    Mark,
    Delete,
}

fn label<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    let labels = secret.metadata.labels.as_ref();
    labels.and_then(|l| l.get(key)).map(String::as_str)
}

fn date(text: &str) -> Option<Date> {
    text.parse().ok()
}

/// What to do about a token that no pod mounts: pure. `limit` is the date, and time, since which
/// use counts.
fn decide(secret: &Secret, account: Option<&ServiceAccount>, limit: Timestamp) -> Act {
    let limit_date = limit.to_zoned(jiff::tz::TimeZone::UTC).date();
    let created = secret.metadata.creation_timestamp.as_ref();
    if secret.metadata.deletion_timestamp.is_some() || created.is_none_or(|t| t.0 >= limit) {
        return Act::Keep;
    }
    if let Some(used) = label(secret, LAST_USED)
        && date(used).is_none_or(|used| used >= limit_date)
    {
        return Act::Keep;
    }
    // Only those that an account names were made for it; others somebody has asked for.
    let named = account.is_some_and(|a| {
        let uid = annotation(secret, UID);
        let mut secrets = a.secrets.iter().flatten();
        (uid.is_empty() || a.uid() == uid)
            && secrets.any(|s| s.name.as_deref() == Some(secret.name()))
    });
    if !named {
        return Act::Keep;
    }
    match label(secret, INVALID_SINCE).and_then(date) {
        None => Act::Mark,
        Some(since) if since >= limit_date => Act::Keep,
        Some(_) => Act::Delete,
    }
}

/// The Secrets that a pod's volumes and variables use.
fn used_by(pod: &FullPod, names: &mut HashSet<String>) {
    // Whatever names a secret in a pod's spec does so in one of these members.
    fn walk(value: &serde_json::Value, names: &mut HashSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    let reference = matches!(
                        key.as_str(),
                        "secretRef"
                            | "secretKeyRef"
                            | "secret"
                            | "imagePullSecrets"
                            | "nodePublishSecretRef"
                            | "controllerPublishSecretRef"
                    );
                    for named in value
                        .as_array()
                        .map_or(std::slice::from_ref(value), Vec::as_slice)
                    {
                        for member in ["name", "secretName"] {
                            if let Some(name) = named[member].as_str().filter(|_| reference) {
                                names.insert(name.to_owned());
                            }
                        }
                    }
                    if key == "secretName"
                        && let Some(name) = value.as_str()
                    {
                        names.insert(name.to_owned());
                    }
                    walk(value, names);
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|i| walk(i, names)),
            _ => {}
        }
    }
    walk(&serde_json::to_value(&pod.spec).unwrap_or_default(), names);
}

struct Cleaner {
    secrets: Api<Secret>,
    pods: Api<FullPod>,
    tracking: Api<ConfigMap>,
    unused_for: SignedDuration,
}

/// Sets the cleaner up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("legacy-service-account-token-cleaner")?;
    let secrets = tokens(ctx);
    let accounts = ctx.informer::<ServiceAccount>();
    let period = ctx
        .options
        .serviceaccount
        .legacy_service_account_token_clean_up_period;
    let cleaner = Cleaner {
        secrets: Api::all(&client),
        pods: Api::all(&client),
        tracking: Api::all(&client),
        unused_for: SignedDuration::try_from(period.get()).unwrap_or(SignedDuration::MAX),
    };
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        secrets.wait_synced().await;
        accounts.wait_synced().await;
        loop {
            let account = |s: &Secret| accounts.store().get(s.namespace(), annotation(s, NAME));
            if let Err(e) = cleaner.clean(&secrets.store().list(), account).await {
                tracing::error!(%e, "legacy tokens could not be cleaned");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    })))
}

impl Cleaner {
    async fn clean(
        &self,
        secrets: &[std::sync::Arc<Secret>],
        account: impl Fn(&Secret) -> Option<std::sync::Arc<ServiceAccount>>,
    ) -> Result<(), client::Error> {
        let now = Timestamp::now();
        let limit = now
            .saturating_sub(self.unused_for)
            .unwrap_or(Timestamp::MIN);
        let (namespace, name, key) = TRACKING;
        let tracking = self.tracking.within(namespace).get(name).await?;
        let since = tracking.data.as_ref().and_then(|d| date(d.get(key)?));
        let today = limit.to_zoned(jiff::tz::TimeZone::UTC).date();
        // Use has not been watched for long enough to say that there was none.
        if since.is_none_or(|since| since >= today) {
            return Ok(());
        }
        for secret in secrets {
            let act = decide(secret, account(secret).as_deref(), limit);
            if act == Act::Keep {
                continue;
            }
            let mut used = HashSet::new();
            let pods = self.pods.within(secret.namespace());
            let listed = pods.list_pages(&ListOptions::new()).await?;
            listed.items.iter().for_each(|p| used_by(p, &mut used));
            if used.contains(secret.name()) {
                continue;
            }
            let api = self.secrets.within(secret.namespace());
            let result = match act {
                Act::Mark => {
                    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
                    let patch = Patch::Merge(json!({"metadata": {
                        "uid": secret.uid(), "labels": {INVALID_SINCE: today}}}));
                    let options = PatchOptions::default();
                    api.patch(secret.name(), &patch, &options).await.map(drop)
                }
                _ => {
                    let options = DeleteOptions {
                        resource_version: Some(secret.resource_version().to_owned()),
                        ..DeleteOptions::default()
                    };
                    api.delete(secret.name(), &options).await
                }
            };
            if let Err(e) = result
                && !e.is_not_found()
                && !e.is_conflict()
            {
                tracing::error!(secret = %secret.key(), %e, "a legacy token could not be cleaned");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_goes_in_two_steps() {
        let limit: Timestamp = "2025-06-01T12:00:00Z".parse().unwrap();
        let account: ServiceAccount = serde_json::from_value(
            json!({"metadata": {"name": "a", "uid": "u"}, "secrets": [{"name": "s"}]}),
        )
        .unwrap();
        for (created, labels, named, want) in [
            ("2025-07-01T00:00:00Z", json!({}), true, Act::Keep),
            ("2025-01-01T00:00:00Z", json!({}), true, Act::Mark),
            ("2025-01-01T00:00:00Z", json!({}), false, Act::Keep),
            (
                "2025-01-01T00:00:00Z",
                json!({LAST_USED: "2025-06-02"}),
                true,
                Act::Keep,
            ),
            (
                "2025-01-01T00:00:00Z",
                json!({LAST_USED: "2025-05-02"}),
                true,
                Act::Mark,
            ),
            (
                "2025-01-01T00:00:00Z",
                json!({LAST_USED: "x"}),
                true,
                Act::Keep,
            ),
            (
                "2025-01-01T00:00:00Z",
                json!({INVALID_SINCE: "2025-06-02"}),
                true,
                Act::Keep,
            ),
            (
                "2025-01-01T00:00:00Z",
                json!({INVALID_SINCE: "2025-05-02"}),
                true,
                Act::Delete,
            ),
        ] {
            let secret = serde_json::from_value(
                json!({"metadata": {"name": "s", "creationTimestamp": created, "labels": labels}}),
            )
            .unwrap();
            let account = named.then_some(&account);
            assert_eq!(decide(&secret, account, limit), want, "{created} {labels}");
        }
    }

    #[test]
    fn pods_use_secrets() {
        let pod = serde_json::from_value(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "v", "secret": {"secretName": "mounted"}},
                {"name": "p", "projected": {"sources": [{"secret": {"name": "projected"}}]}}],
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "env"}}],
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]}]}}))
        .unwrap();
        let mut names = HashSet::new();
        used_by(&pod, &mut names);
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort();
        assert_eq!(names, ["env", "key", "mounted", "projected", "pull"]);
    }
}
