//! The tracking of service account tokens that are kept in secrets (KEP-2799): since when it
//! is noted that they are used, and the day on which each was. The controller that cleans up
//! what nobody uses goes by both.
//!
//! What must not be here: whether a token is good (`authn`).

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use meta::Status;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::ControlPlane;
use super::local::Local;
use crate::authn::{LAST_USED_LABEL, UsedSecret};
use crate::registry::object_meta::{child_mut, meta};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// The ConfigMap that says since when uses are noted; `None` when it does already.
fn tracked(found: Option<Value>, today: Date) -> Option<Value> {
    let Some(mut found) = found else {
        return Some(json!({
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {"since": today.to_string()},
        }));
    };
    let since = found["data"]["since"].as_str().unwrap_or_default();
    if since.parse::<Date>().is_ok() {
        return None;
    }
    child_mut(&mut found, "data").insert("since".to_owned(), today.to_string().into());
    Some(found)
}

pub(super) async fn ensure(cp: Arc<ControlPlane>) -> Result<(), Status> {
    let found = cp.local.get("", "configmaps", NAMESPACE, NAME).await?;
    let is_new = found.is_none();
    let Some(map) = tracked(found, today()) else {
        return Ok(());
    };
    if is_new {
        return cp.local.ensure("", "configmaps", NAMESPACE, map).await;
    }
    match cp.local.update("", "configmaps", NAMESPACE, map).await {
        // Another server was faster.
        Err(e) if e.is_conflict() || e.is_not_found() => Ok(()),
        done => done.map(drop),
    }
}

/// Whether the label says so already. Servers' clocks may be on either side of midnight.
fn is_noted(secret: &Value, today: Date) -> bool {
    let noted = secret["metadata"]["labels"][LAST_USED_LABEL].as_str();
    let noted = noted.and_then(|day| day.parse::<Date>().ok());
    noted.is_some_and(|day| day == today || day == today.saturating_add(Span::new().days(1)))
}

/// Notes the uses of secrets on the secrets, for as long as there is somebody to use them.
pub(super) async fn note(local: Arc<Local>, mut used: mpsc::Receiver<UsedSecret>) {
    while let Some(UsedSecret {
        namespace,
        name,
        uid,
    }) = used.recv().await
    {
        let day = today();
        match local.get("", "secrets", &namespace, &name).await {
            Ok(Some(secret)) if !is_noted(&secret, day) && meta(&secret).uid() == uid => {}
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(namespace, name, %error, "noting the use of a token");
                continue;
            }
        }
        let label = |secret: &mut Value| {
            if meta(secret).uid() == uid {
                let labels = child_mut(&mut secret["metadata"], "labels");
                labels.insert(LAST_USED_LABEL.to_owned(), day.to_string().into());
            }
            Ok(())
        };
        let noted = local.modify("", "secrets", &namespace, &name, &label).await;
        if let Err(error) = noted {
            tracing::warn!(namespace, name, %error, "noting the use of a token");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracking_begins_once() {
        let day: Date = "2026-11-21".parse().unwrap();
        let first = tracked(None, day).unwrap();
        assert_eq!(first["data"]["since"], "2026-11-21");
        assert_eq!(tracked(Some(first), day.tomorrow().unwrap()), None);
        let spoilt = json!({"metadata": {"name": NAME}, "data": {"since": "soon"}});
        assert_eq!(
            tracked(Some(spoilt), day).unwrap()["data"]["since"],
            "2026-11-21"
        );
    }

    #[test]
    fn a_use_is_noted_once_a_day() {
        let day: Date = "2026-11-21".parse().unwrap();
        let used = |on: &str| json!({"metadata": {"labels": {LAST_USED_LABEL: on}}});
        assert!(is_noted(&used("2026-11-21"), day));
        assert!(is_noted(&used("2026-11-22"), day));
        assert!(!is_noted(&used("2026-11-20"), day));
        assert!(!is_noted(&json!({}), day));
    }
}
