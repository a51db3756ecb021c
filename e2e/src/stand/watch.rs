//! Every change of every object of a collection, in order.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Endpoint;
use super::http::{Ask, JSON, METADATA, METADATA_LIST};

/// Bounds what hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a watch tells.
pub struct Changes(mpsc::UnboundedReceiver<(String, Value)>);

impl Changes {
    /// Follows a collection, or with a query those of it that are selected, from now on.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    pub async fn follow(endpoint: &Endpoint, path: &str) -> Result<Self> {
        Ok(Self::list_and_follow(endpoint, path).await?.1)
    }

    /// The same of objects' metadata only, which costs the server and this side less.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    pub async fn follow_metadata(endpoint: &Endpoint, path: &str) -> Result<Self> {
        let (_, changes) = Self::begin(endpoint, path, METADATA_LIST, METADATA).await?;
        Ok(changes)
    }

    /// What is in a collection now, and what changes from then on.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    pub async fn list_and_follow(endpoint: &Endpoint, path: &str) -> Result<(Vec<Value>, Self)> {
        Self::begin(endpoint, path, JSON, JSON).await
    }

    async fn begin(
        endpoint: &Endpoint,
        path: &str,
        list_as: &'static str,
        watch_as: &'static str,
    ) -> Result<(Vec<Value>, Self)> {
        let connection = endpoint.connect().await?;
        let mut list = connection.json(&Ask::get(path).accept(list_as)).await?;
        let mut revision = resource_version(&list);
        let path = path.to_owned();
        let and = if path.contains('?') { '&' } else { '?' };
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // A server may end a watch whose reader is slow. The last one ends with the stand.
            while !sender.is_closed() {
                let ask =
                    format!("{path}{and}watch=1&resourceVersion={revision}&timeoutSeconds=86400");
                let mut rest: Vec<u8> = Vec::new();
                let told = |chunk: &[u8]| {
                    rest.extend_from_slice(chunk);
                    let mut read = 0;
                    while let Some(length) = rest[read..].iter().position(|b| *b == b'\n') {
                        let mut event: Value = serde_json::from_slice(&rest[read..read + length])?;
                        read += length + 1;
                        let kind = event["type"].as_str().unwrap_or_default().to_owned();
                        let object = event["object"].take();
                        if kind == "ERROR" {
                            bail!("the watch cannot go on: {object}");
                        }
                        revision = resource_version(&object);
                        if sender.send((kind, object)).is_err() {
                            bail!("nobody listens");
                        }
                    }
                    rest.drain(..read);
                    Ok(())
                };
                let ask = Ask::get(ask).accept(watch_as);
                if connection.stream(&ask, told).await.is_err() {
                    return;
                }
            }
        });
        let items = match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        Ok((items, Self(receiver)))
    }

    /// The next change: what happened (`ADDED`, `MODIFIED`, `DELETED`), and the object.
    ///
    /// # Errors
    ///
    /// When nothing happens for long.
    pub async fn next(&mut self) -> Result<(String, Value)> {
        let next = tokio::time::timeout(PATIENCE, self.0.recv()).await;
        next.context("nothing happens any more")?
            .context("the watch has ended")
    }

    /// The same, however long it takes.
    ///
    /// # Errors
    ///
    /// When the watch has ended.
    pub async fn next_at_all(&mut self) -> Result<(String, Value)> {
        self.0.recv().await.context("the watch has ended")
    }

    /// Drops what has happened so far.
    pub fn drain(&mut self) {
        while self.0.try_recv().is_ok() {}
    }
}

fn resource_version(object: &Value) -> String {
    let version = &object["metadata"]["resourceVersion"];
    version.as_str().unwrap_or("0").to_owned()
}
