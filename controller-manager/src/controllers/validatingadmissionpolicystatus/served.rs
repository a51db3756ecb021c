//! What the API server says of its kinds: discovery, and the OpenAPI documents of group
//! versions, fetched when a policy asks for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Error};
use meta::GroupVersion;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use super::schema::Document;
use crate::discovery::{Resources, discover};

/// How long an answer is good for: as long as upstream's manager takes one for the truth. Policies
/// that come together are checked against one answer, and memory is free again soon after.
const KEPT: Duration = Duration::from_secs(30);

/// Asks the server what there is.
pub struct Served {
    client: Client,
    known: Mutex<Option<Arc<Known>>>,
}

/// What the server has said, at one time.
pub struct Known {
    client: Client,
    asked: Instant,
    pub resources: Resources,
    /// Where the document of a group version is, by the path of the group version.
    paths: HashMap<String, Path>,
    documents: tokio::sync::Mutex<HashMap<GroupVersion, Option<Arc<Document>>>>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    paths: HashMap<String, Path>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Path {
    #[serde(rename = "serverRelativeURL")]
    server_relative_url: String,
}

impl Served {
    pub fn new(client: &Client) -> Arc<Self> {
        Arc::new(Self {
            client: client.clone(),
            known: Mutex::default(),
        })
    }

    /// What the server said a short while ago, or says now, and whether it is new.
    pub async fn known(self: &Arc<Self>) -> Result<(Arc<Known>, bool), Error> {
        let known = self.known.lock().clone();
        match known.filter(|known| known.asked.elapsed() < KEPT) {
            Some(known) => Ok((known, false)),
            None => Ok((self.ask().await?, true)),
        }
    }

    /// What the server says now.
    pub async fn ask(self: &Arc<Self>) -> Result<Arc<Known>, Error> {
        let asked = Instant::now();
        let index: Index = self.client.get_json("/openapi/v3").await?;
        let known = Arc::new(Known {
            client: self.client.clone(),
            asked,
            resources: discover(&self.client).await?,
            paths: index.paths,
            documents: tokio::sync::Mutex::default(),
        });
        *self.known.lock() = Some(Arc::clone(&known));
        let served = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            if let Some(served) = served.upgrade() {
                let mut known = served.known.lock();
                if known.as_ref().is_some_and(|known| known.asked == asked) {
                    *known = None;
                }
            }
        });
        Ok(known)
    }
}

impl Known {
    /// The document of a group version; `None` when there is none, or it cannot be had: a server
    /// behind the API server that is down keeps no policy from being checked for other kinds.
    pub async fn document(&self, gv: &GroupVersion) -> Option<Arc<Document>> {
        // Whoever wants the same one waits for it.
        let mut documents = self.documents.lock().await;
        if let Some(document) = documents.get(gv) {
            return document.clone();
        }
        let path = match gv.group.as_str() {
            "" => format!("api/{}", gv.version),
            group => format!("apis/{group}/{}", gv.version),
        };
        let url = &self.paths.get(&path)?.server_relative_url;
        let document = match self.client.get_json::<Document>(url).await {
            Ok(document) => Some(Arc::new(document)),
            Err(error) => {
                tracing::warn!(%gv, %error, "no OpenAPI document, its kinds are not checked");
                None
            }
        };
        documents.insert(gv.clone(), document.clone());
        document
    }
}
