//! One API server on an etcd of its own, with every API and the features that the
//! corpus needs.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::stand::etcd::Gateway;
use e2e::stand::http::Ask;
use e2e::stand::pki::Pki;
use e2e::stand::{Apiserver, Connection, Endpoint, Etcd};
use e2e::wait::until_async;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

/// What a server has answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub warnings: Vec<String>,
    pub body: Value,
}

/// A server that is asked, and its etcd.
pub struct Server {
    connection: Connection,
    gateway: Gateway,
    _api: Apiserver,
    _etcd: Etcd,
}

impl Server {
    /// Starts both and makes the default service account, as it has no controller
    /// here. Its token is not mounted: that is not what is compared.
    pub async fn start(bin: &Path, home: &Path, pki: &Pki) -> Result<Self> {
        std::fs::create_dir_all(home)?;
        let mut etcd = Etcd::new(home, 1, &["--unsafe-no-fsync"])?;
        etcd.start().await?;
        let flags = [
            "--runtime-config=api/all=true",
            "--feature-gates=ClusterTrustBundle=true,StorageVersionMigrator=true",
        ];
        let flags = flags.map(str::to_owned);
        let log = home.join("kube-apiserver.log");
        let mut api = Apiserver::new(bin, &etcd.servers(), pki, &log, &flags)?;
        let endpoint = Endpoint::new(api.port, pki)?;
        api.start()?;
        api.ready(&endpoint).await?;
        let server = Self {
            connection: endpoint.connect().await?,
            gateway: etcd.gateway(0).await?,
            _api: api,
            _etcd: etcd,
        };
        let account = json!({
            "metadata": {"name": "default"},
            "automountServiceAccountToken": false,
        });
        let ask = Ask::post("/api/v1/namespaces/default/serviceaccounts", &account);
        until_async("the default namespace", async || {
            let made = server.connection.success(&ask).await;
            made.map_err(|error| error.to_string())
        })
        .await;
        Ok(server)
    }

    /// Asks for anything; a body that is not JSON is a string.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer> {
        let answer = self.connection.open(ask).await?;
        let status = answer.status().as_u16();
        let mut warnings: Vec<_> = answer
            .headers()
            .get_all("warning")
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        warnings.sort();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes)));
        Ok(Answer {
            status,
            warnings,
            body,
        })
    }

    /// Key and value of what was written at a revision, unless it has been written
    /// again.
    pub async fn written(&self, revision: &str) -> Result<Option<(String, Vec<u8>)>> {
        let range = json!({
            "key": BASE64.encode("/registry/"),
            "range_end": BASE64.encode("/registry0"),
            "min_mod_revision": revision,
            "max_mod_revision": revision,
        });
        let answer = self.gateway.ask("/v3/kv/range", &range).await?;
        let Some(found) = answer["kvs"].get(0) else {
            return Ok(None);
        };
        let part = |name: &str| {
            let text = found[name].as_str().context("a key and its value")?;
            anyhow::Ok(BASE64.decode(text)?)
        };
        Ok(Some((String::from_utf8(part("key")?)?, part("value")?)))
    }
}
