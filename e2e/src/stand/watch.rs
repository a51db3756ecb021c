//! Every change of every object of a collection, in order.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Endpoint;
use super::http::Ask;

/// Bounds what hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a watch tells.
pub struct Changes(mpsc::UnboundedReceiver<(String, Value)>);

impl Changes {
    /// Follows a collection from now on.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    pub async fn follow(endpoint: &Endpoint, path: &str) -> Result<Self> {
        Ok(Self::list_and_follow(endpoint, path).await?.1)
    }

    /// What is in a collection now, and what changes from then on.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    pub async fn list_and_follow(endpoint: &Endpoint, path: &str) -> Result<(Vec<Value>, Self)> {
        let connection = endpoint.connect().await?;
        let mut list = connection.json(&Ask::get(path)).await?;
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let path = format!("{path}?watch=1&resourceVersion={revision}&timeoutSeconds=86400");
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut rest: Vec<u8> = Vec::new();
            let told = |chunk: &[u8]| {
                rest.extend_from_slice(chunk);
                while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let mut event: Value = serde_json::from_slice(&line)?;
                    let kind = event["type"].as_str().unwrap_or_default().to_owned();
                    if sender.send((kind, event["object"].take())).is_err() {
                        bail!("nobody listens");
                    }
                }
                Ok(())
            };
            // It ends with the stand.
            let _ = connection.stream(&Ask::get(path), told).await;
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
