//! bootstrap-signer-controller and token-cleaner-controller: tokens that nodes join with sign
//! what they find of the cluster before they trust it, and end when they expire.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::informer::{Event as Change, Informer, Selection, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use meta::time::parse_rfc3339;

use crate::context::{Context, Run, retry_conflicts};

const TOKENS: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
const INFO_NAMESPACE: &str = "kube-public";
const INFO_NAME: &str = "cluster-info";
/// What is signed.
const KUBECONFIG: &str = "kubeconfig";
/// Followed by the token's id: its signature.
const SIGNATURE: &str = "jws-kubeconfig-";

/// Only these secrets are held.
fn tokens(ctx: &Context) -> Informer<Secret> {
    ctx.informers.select(&Selection {
        namespace: TOKENS.to_owned(),
        labels: String::new(),
        fields: "type=bootstrap.kubernetes.io/token".to_owned(),
    })
}

fn field<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let data = secret.data.as_ref().and_then(|d| d.get(key));
    data.and_then(|v| std::str::from_utf8(&v.0).ok())
        .unwrap_or_default()
}

/// When a token ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Never,
    In(Duration),
    Past,
}

/// What cannot be read is no time to trust.
fn end(secret: &Secret, now: Timestamp) -> End {
    let text = field(secret, "expiration");
    if text.is_empty() {
        return End::Never;
    }
    let left = parse_rfc3339(text).map(|t| t.duration_since(now));
    match left.filter(|l| l.is_positive()) {
        Some(left) => End::In(Duration::try_from(left).unwrap_or(Duration::MAX)),
        None => End::Past,
    }
}

/// The token's id and secret, if it may sign.
fn signing(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let id = secret.name().strip_prefix(NAME_PREFIX)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let named = id.len() == 6 && id.bytes().all(plain) && field(secret, "token-id") == id;
    let key = Some(field(secret, "token-secret")).filter(|k| !k.is_empty())?;
    let allowed =
        field(secret, "usage-bootstrap-signing") == "true" && end(secret, now) != End::Past;
    (named && allowed).then_some((id, key))
}

/// A signature (RFC 7515, appendix F: without what is signed).
fn signature(content: &str, id: &str, key: &str) -> Result<String, jsonwebtoken::errors::Error> {
    let header = format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
    let header = URL_SAFE_NO_PAD.encode(header);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = EncodingKey::from_secret(key.as_bytes());
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256)?;
    Ok(format!("{header}..{signature}"))
}

/// The ConfigMap's data with the signatures of these tokens and no other.
fn signed(
    data: &BTreeMap<String, String>,
    tokens: &[Arc<Secret>],
    now: Timestamp,
) -> Result<Option<BTreeMap<String, String>>, jsonwebtoken::errors::Error> {
    let Some(content) = data.get(KUBECONFIG) else {
        return Ok(None);
    };
    let mut new = data.clone();
    new.retain(|key, _| !key.starts_with(SIGNATURE));
    for (id, key) in tokens.iter().filter_map(|s| signing(s, now)) {
        new.insert(format!("{SIGNATURE}{id}"), signature(content, id, key)?);
    }
    Ok(Some(new).filter(|new| new != data))
}

struct Signer {
    tokens: Store<Secret>,
    info: Store<ConfigMap>,
    api: Api<ConfigMap>,
}

/// Sets the signer up.
pub fn start_signer(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("bootstrap-signer")?;
    let tokens = tokens(ctx);
    let selection = Selection::name(INFO_NAMESPACE, INFO_NAME);
    let info = ctx.informers.select::<ConfigMap>(&selection);
    let queue: Queue<ObjectKey> = ctx.queue("bootstrap_signer_queue");
    let key = ObjectKey::new(INFO_NAMESPACE, INFO_NAME);
    let (q, k) = (queue.clone(), key.clone());
    tokens.add_handler(move |_| q.add(k.clone()));
    let q = queue.clone();
    info.add_handler(move |_| q.add(key.clone()));
    let signer = Arc::new(Signer {
        tokens: tokens.store().clone(),
        info: info.store().clone(),
        api: Api::all(&client),
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        tokens.wait_synced().await;
        info.wait_synced().await;
        queue
            .run(1, &stop, move |key| {
                let signer = Arc::clone(&signer);
                async move { retry_conflicts(signer.sync(&key).await) }
            })
            .await;
    })))
}

impl Signer {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(info) = self.info.get_key(key) else {
            return Ok(Requeue::No);
        };
        let data = info.data.clone().unwrap_or_default();
        let new = signed(&data, &self.tokens.list(), Timestamp::now());
        if let Some(new) = new.map_err(|e| Error::Request(format!("cannot sign {key}: {e}")))? {
            let changed = ConfigMap {
                data: Some(new),
                ..ConfigMap::clone(&info)
            };
            self.api.replace(&changed).await?;
        }
        Ok(Requeue::No)
    }
}

/// Sets the cleaner up.
pub fn start_cleaner(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("token-cleaner")?;
    let tokens = tokens(ctx);
    let queue: Queue<ObjectKey> = ctx.queue("token_cleaner");
    let q = queue.clone();
    tokens.add_handler(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            q.add(change.key());
        }
    });
    let api: Api<Secret> = Api::all(&client);
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        tokens.wait_synced().await;
        let store = tokens.store().clone();
        queue
            .run(1, &stop, move |key| {
                let (token, api) = (store.get_key(&key), api.within(key.namespace()));
                async move {
                    match token {
                        Some(token) => clean(&api, &token).await,
                        None => Ok(Requeue::No),
                    }
                }
            })
            .await;
    })))
}

async fn clean(api: &Api<Secret>, token: &Secret) -> Result<Requeue, Error> {
    match end(token, Timestamp::now()) {
        End::Never => Ok(Requeue::No),
        End::In(left) => Ok(Requeue::After(left)),
        End::Past => {
            tracing::info!(secret = %token.key(), "Deleting expired bootstrap token");
            let options = DeleteOptions::with_uid(token.uid());
            match api.delete(token.name(), &options).await {
                // It is gone, or another has its name.
                Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
                _ => Ok(Requeue::No),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(id: &str, key: &str, expiration: &str, signs: &str) -> Arc<Secret> {
        let mut secret: Secret =
            serde_json::from_value(json!({"metadata": {"name": format!("bootstrap-token-{id}")}}))
                .unwrap();
        let data = [
            ("token-id", id),
            ("token-secret", key),
            ("expiration", expiration),
            ("usage-bootstrap-signing", signs),
        ];
        let data =
            data.map(|(k, v)| (k.to_owned(), k8s_openapi::ByteString(v.as_bytes().to_vec())));
        secret.data = Some(data.into());
        Arc::new(secret)
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn signatures_are_those_of_others() {
        // From Kubernetes' own documentation of the format.
        let got = signature("{}", "abcdef", "1234567890123456").unwrap();
        let (header, mac) = got.split_once("..").unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.decode(header).unwrap(),
            br#"{"alg":"HS256","kid":"abcdef"}"#
        );
        assert_eq!(URL_SAFE_NO_PAD.decode(mac).unwrap().len(), 32);
    }

    #[test]
    fn tokens_end() {
        assert_eq!(end(&token("a", "k", "", "true"), now()), End::Never);
        let later = token("a", "k", "2026-01-01T00:01:00Z", "true");
        assert_eq!(end(&later, now()), End::In(Duration::from_secs(60)));
        assert_eq!(
            end(&token("a", "k", "2025-01-01T00:01:00+02:00", "true"), now()),
            End::Past
        );
        assert_eq!(end(&token("a", "k", "soon", "true"), now()), End::Past);
    }

    #[test]
    fn only_tokens_that_may_sign() {
        let tokens = [
            token("abcdef", "k", "", "true"),
            token("abcde1", "k", "2025-01-01T00:00:00Z", "true"),
            token("abcde2", "k", "", ""),
            token("abcde3", "", "", "true"),
            token("ABCDEF", "k", "", "true"),
        ];
        let data: BTreeMap<String, String> =
            [("kubeconfig", "x"), ("jws-kubeconfig-abcde2", "old")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        let new = signed(&data, &tokens, now()).unwrap().unwrap();
        let keys: Vec<_> = new.keys().map(String::as_str).collect();
        assert_eq!(keys, ["jws-kubeconfig-abcdef", "kubeconfig"]);
        assert_eq!(signed(&new, &tokens, now()).unwrap(), None);
        assert_eq!(signed(&BTreeMap::new(), &tokens, now()).unwrap(), None);
    }
}
