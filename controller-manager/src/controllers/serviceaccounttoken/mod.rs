//! serviceaccount-token-controller and legacy-serviceaccount-token-cleaner-controller: tokens of
//! service accounts that are kept in Secrets, for who still asks for such.

mod cleaner;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::informer::{Event as Change, Index, Informer, Selection, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, optional};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub use self::cleaner::start as start_cleaner;

use crate::context::{Context, Run, retry_conflicts};
use crate::pki::read_key;

const ISSUER: &str = "kubernetes/serviceaccount";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Only these secrets are held.
fn tokens(ctx: &Context) -> Informer<Secret> {
    let selection = Selection::fields("type=kubernetes.io/service-account-token");
    ctx.informers.select(&selection)
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let annotations = secret.metadata.annotations.as_ref();
    annotations
        .and_then(|a| a.get(key))
        .map_or("", String::as_str)
}

fn has(secret: &Secret, key: &str) -> bool {
    let data = secret.data.as_ref().and_then(|d| d.get(key));
    data.is_some_and(|v| !v.0.is_empty())
}

/// Signs tokens.
struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    id: String,
}

impl Signer {
    fn new(pair: &KeyPair) -> anyhow::Result<Self> {
        let der = pair.serialized_der();
        let (algorithm, key) = if pair.is_compatible(&rcgen::PKCS_RSA_SHA256) {
            let pem = pair.serialize_pem();
            (Algorithm::RS256, EncodingKey::from_rsa_pem(pem.as_bytes())?)
        } else if pair.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            (Algorithm::ES256, EncodingKey::from_ec_der(der))
        } else if pair.is_compatible(&rcgen::PKCS_ECDSA_P384_SHA384) {
            (Algorithm::ES384, EncodingKey::from_ec_der(der))
        } else {
            anyhow::bail!("the key of service account tokens must be RSA or ECDSA (P-256, P-384)");
        };
        let hash = Sha256::digest(pair.subject_public_key_info());
        Ok(Self {
            key,
            algorithm,
            id: URL_SAFE_NO_PAD.encode(hash),
        })
    }

    /// A token that is good as long as its Secret is there.
    fn sign(
        &self,
        account: &ServiceAccount,
        secret: &Secret,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let (namespace, name) = (account.namespace(), account.name());
        let claims = json!({
            "iss": ISSUER,
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret.name(),
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        let header = Header {
            kid: Some(self.id.clone()),
            typ: None,
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, &claims, &self.key)
    }
}

struct Controller {
    secrets: Store<Secret>,
    by_account: Index<Secret>,
    accounts: Store<ServiceAccount>,
    secret_api: Api<Secret>,
    account_api: Api<ServiceAccount>,
    signer: Signer,
    /// What tokens' users are to trust.
    root_ca: Option<Vec<u8>>,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up. Without a key there is nothing to sign with.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let flags = &ctx.options.serviceaccount;
    if flags.service_account_private_key_file.is_empty() {
        return Ok(None);
    }
    let signer = Signer::new(&read_key(&flags.service_account_private_key_file)?)?;
    let root_ca = match flags.root_ca_file.as_str() {
        "" => ctx.root_ca()?.map(String::into_bytes),
        file => Some(std::fs::read(file)?),
    };
    // Service accounts need tokens before any controller can be one.
    let client = ctx.root_client("tokens-controller");
    let secrets = tokens(ctx);
    let accounts = ctx.informer::<ServiceAccount>();
    let controller = Arc::new(Controller {
        secrets: secrets.store().clone(),
        by_account: secrets.add_index("account", |s| {
            vec![format!("{}/{}", s.namespace(), annotation(s, NAME))]
        }),
        accounts: accounts.store().clone(),
        secret_api: Api::all(&client),
        account_api: Api::all(&client),
        signer,
        root_ca,
        queue: ctx.queue("serviceaccount_tokens_secret"),
    });
    let c = Arc::clone(&controller);
    secrets.add_handler(move |change| c.queue.add(change.key()));
    let c = Arc::clone(&controller);
    accounts.add_handler(move |change| {
        // A new account may be what a token waits for; with an old one its tokens go.
        if !matches!(change, Change::Updated { .. }) {
            for secret in c.by_account.get(change.key().as_str()) {
                c.queue.add(secret.key());
            }
        }
    });
    let workers = flags.concurrent_serviceaccount_token_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        secrets.wait_synced().await;
        accounts.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(secret) = self.secrets.get_key(key) else {
            self.drop_references(key).await?;
            return Ok(Requeue::No);
        };
        let name = annotation(&secret, NAME);
        if name.is_empty() || secret.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::No);
        }
        let Some(account) = self.account(&secret, name).await? else {
            let options = DeleteOptions::with_uid(secret.uid());
            let api = self.secret_api.within(secret.namespace());
            return match api.delete(secret.name(), &options).await {
                Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
                _ => Ok(Requeue::No),
            };
        };
        if let Some(changed) = self.filled(&secret, &account)? {
            match self.secret_api.replace(&changed).await {
                // Its next event brings us back.
                Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e),
                _ => {}
            }
        }
        Ok(Requeue::No)
    }

    /// The account that the token is for. That there is none is asked of the server.
    async fn account(
        &self,
        secret: &Secret,
        name: &str,
    ) -> Result<Option<Arc<ServiceAccount>>, Error> {
        let uid = annotation(secret, UID);
        let is_it = |a: &ServiceAccount| uid.is_empty() || a.uid() == uid;
        if let Some(account) = self.accounts.get(secret.namespace(), name)
            && is_it(&account)
        {
            return Ok(Some(account));
        }
        let api = self.account_api.within(secret.namespace());
        let live = optional(api.get(name).await)?;
        Ok(live.filter(is_it).map(Arc::new))
    }

    /// The Secret with all that it should have; `None` if it has.
    fn filled(&self, secret: &Secret, account: &ServiceAccount) -> Result<Option<Secret>, Error> {
        let mut changed = secret.clone();
        let data = changed.data.get_or_insert_default();
        if let Some(ca) = &self.root_ca
            && data.get("ca.crt").is_none_or(|c| c.0 != *ca)
        {
            data.insert("ca.crt".to_owned(), ByteString(ca.clone()));
        }
        if !has(secret, "namespace") {
            let namespace = secret.namespace().as_bytes().to_vec();
            data.insert("namespace".to_owned(), ByteString(namespace));
        }
        if !has(secret, "token") {
            let token = self.signer.sign(account, secret).map_err(|e| {
                Error::Request(format!("cannot sign a token for {}: {e}", account.key()))
            })?;
            data.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        if changed == *secret {
            return Ok(None);
        }
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(NAME.to_owned(), account.name().to_owned());
        annotations.insert(UID.to_owned(), account.uid().to_owned());
        Ok(Some(changed))
    }

    /// Accounts do not name Secrets that are gone.
    async fn drop_references(&self, key: &ObjectKey) -> Result<(), Error> {
        let names = |a: &ServiceAccount| {
            let mut secrets = a.secrets.iter().flatten();
            secrets.any(|s| s.name.as_deref() == Some(key.name()))
        };
        let accounts = self
            .accounts
            .filter(|a| a.namespace() == key.namespace() && names(a));
        for account in accounts {
            let mut changed = ServiceAccount::clone(&account);
            if let Some(secrets) = &mut changed.secrets {
                secrets.retain(|s| s.name.as_deref() != Some(key.name()));
            }
            optional(self.account_api.replace(&changed).await)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_account_and_secret() {
        let signer = Signer::new(&KeyPair::generate().unwrap()).unwrap();
        let account = serde_json::from_value(
            json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}}),
        )
        .unwrap();
        let secret =
            serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}})).unwrap();
        let token = signer.sign(&account, &secret).unwrap();
        let parts: Vec<_> = token
            .split('.')
            .map(|p| URL_SAFE_NO_PAD.decode(p).unwrap())
            .collect();
        let header: serde_json::Value = serde_json::from_slice(&parts[0]).unwrap();
        assert_eq!(header, json!({"alg": "ES256", "kid": signer.id}));
        let claims: serde_json::Value = serde_json::from_slice(&parts[1]).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:n:a");
        assert_eq!(claims["kubernetes.io/serviceaccount/secret.name"], "s");
        assert_eq!(claims["iss"], "kubernetes/serviceaccount");
    }
}
