//! What the API server says of its kinds: discovery, and the OpenAPI documents of group
//! versions, fetched when a policy asks for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Error};
use meta::GroupVersion;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::schema::Document;
use crate::discovery::{Resources, discover};

/// How long discovery is good for: as long as upstream's manager takes it for the truth. Policies
/// that come together are checked against one answer, and memory is free again soon after.
const KEPT: Duration = Duration::from_secs(30);

/// Asks the server what there is.
pub struct Served {
    client: Client,
    /// Whoever asks keeps others from asking the same.
    known: Mutex<Option<Arc<Known>>>,
}

/// What the server has said of late.
pub struct Known {
    asked: Instant,
    pub resources: Resources,
    /// By their places, which change with what is in them.
    documents: Mutex<HashMap<String, Arc<Document>>>,
}

/// Where the documents of group versions are now, by the paths of the group versions.
#[derive(Deserialize)]
pub struct Index {
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
        let mut kept = self.known.lock().await;
        if let Some(known) = kept.as_ref().filter(|known| known.asked.elapsed() < KEPT) {
            return Ok((Arc::clone(known), false));
        }
        Ok((self.ask(&mut kept).await?, true))
    }

    /// What the server says now.
    pub async fn asked_anew(self: &Arc<Self>) -> Result<Arc<Known>, Error> {
        let mut kept = self.known.lock().await;
        self.ask(&mut kept).await
    }

    async fn ask(self: &Arc<Self>, kept: &mut Option<Arc<Known>>) -> Result<Arc<Known>, Error> {
        let known = Arc::new(Known {
            asked: Instant::now(),
            resources: discover(&self.client).await?,
            documents: Mutex::default(),
        });
        *kept = Some(Arc::clone(&known));
        let served = Arc::downgrade(self);
        let asked = known.asked;
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            if let Some(served) = served.upgrade() {
                let mut known = served.known.lock().await;
                if known.as_ref().is_some_and(|known| known.asked == asked) {
                    *known = None;
                }
            }
        });
        Ok(known)
    }

    /// Which documents there are now: a schema may have come or changed just before a policy.
    pub async fn index(&self) -> Result<Index, Error> {
        self.client.get_json("/openapi/v3").await
    }

    /// The document of a group version; `None` when there is none, or it cannot be had: a server
    /// behind the API server that is down keeps no policy from being checked for other kinds.
    pub async fn document(
        &self,
        known: &Known,
        index: &Index,
        gv: &GroupVersion,
    ) -> Option<Arc<Document>> {
        let path = match gv.group.as_str() {
            "" => format!("api/{}", gv.version),
            group => format!("apis/{group}/{}", gv.version),
        };
        let url = &index.paths.get(&path)?.server_relative_url;
        // Whoever wants the same one waits for it.
        let mut documents = known.documents.lock().await;
        if let Some(document) = documents.get(url) {
            return Some(Arc::clone(document));
        }
        match self.client.get_json::<Document>(url).await {
            Ok(document) => {
                let document = Arc::new(document);
                documents.insert(url.clone(), Arc::clone(&document));
                Some(document)
            }
            Err(error) => {
                tracing::warn!(%gv, %error, "no OpenAPI document, its kinds are not checked");
                None
            }
        }
    }
}
