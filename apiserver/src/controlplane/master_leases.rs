//! Which API servers are alive: each keeps a key under `masterleases/` that etcd drops when
//! it is not renewed. Compatible with upstream's `lease` endpoint reconciler.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use meta::Status;
use schema::Resource;
use serde_json::{Value, json};

use crate::registry::store;
use crate::storage::keys::{self, Keys};
use crate::storage::{Storage, StorageError};

const PREFIX: &str = "masterleases";
const TTL: Duration = Duration::from_secs(15);

pub struct MasterLeases {
    pub storage: Arc<dyn Storage>,
    pub keys: Keys,
    /// Upstream keeps an Endpoints object under each key.
    pub endpoints: &'static Resource,
}

fn failed(e: StorageError) -> Status {
    Status::internal(e)
}

impl MasterLeases {
    fn key(&self, ip: IpAddr) -> String {
        self.keys.object(PREFIX, "", &ip.to_string())
    }

    /// The addresses of the servers that live.
    pub async fn list(&self) -> Result<Vec<String>, Status> {
        let prefix = self.keys.resource(PREFIX);
        let page = self
            .storage
            .range(&prefix, &keys::prefix_end(&prefix), 0, 0)
            .await
            .map_err(failed)?;
        Ok(page
            .items
            .iter()
            .filter_map(|kv| store::decode(self.endpoints, &kv.value).ok())
            .filter_map(|e| Some(e.pointer("/subsets/0/addresses/0/ip")?.as_str()?.to_owned()))
            .collect())
    }

    /// Makes this server live for another while.
    pub async fn renew(&self, ip: IpAddr) -> Result<(), Status> {
        let key = self.key(ip);
        loop {
            let found = self.storage.get(&key, 0).await.map_err(failed)?;
            let generation = found
                .as_ref()
                .and_then(|kv| store::decode(self.endpoints, &kv.value).ok())
                .and_then(|e: Value| e["metadata"]["generation"].as_i64())
                .unwrap_or(0);
            let lease = json!({
                "metadata": {"generation": generation + 1},
                "subsets": [{"addresses": [{"ip": ip.to_string()}]}],
            });
            let bytes = store::encode(self.endpoints, &lease).map_err(Status::internal)?;
            let written = match found {
                Some(kv) => {
                    self.storage
                        .update(&key, bytes.into(), kv.mod_revision, Some(TTL))
                        .await
                }
                None => self.storage.create(&key, bytes.into(), Some(TTL)).await,
            };
            match written {
                Ok(_) => return Ok(()),
                Err(
                    StorageError::Conflict { .. }
                    | StorageError::Exists(_)
                    | StorageError::NotFound(_),
                ) => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }

    pub async fn remove(&self, ip: IpAddr) -> Result<(), Status> {
        let key = self.key(ip);
        loop {
            let Some(kv) = self.storage.get(&key, 0).await.map_err(failed)? else {
                return Ok(());
            };
            match self.storage.delete(&key, kv.mod_revision).await {
                Ok(_) | Err(StorageError::NotFound(_)) => return Ok(()),
                Err(StorageError::Conflict { .. }) => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
}
