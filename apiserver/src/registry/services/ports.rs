//! Node ports: one bitmap in etcd for all of them, as upstream keeps it (a RangeAllocation
//! at `ranges/servicenodeports` whose data is a big-endian number, bit 0 the first port).

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::Status;
use serde_json::{Value, json};

use super::metrics::{DYNAMIC, Metrics, STATIC};
use super::range;
use crate::options::PortRange;
use crate::storage::keys::Keys;
use crate::storage::{KeyValue, Storage, StorageError};

const KEY: (&str, &str) = ("ranges", "servicenodeports");

/// The ports in use, by offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bitmap(BTreeSet<u16>);

impl Bitmap {
    pub fn from_bytes(bytes: &[u8]) -> Bitmap {
        let mut set = BTreeSet::new();
        for (i, byte) in bytes.iter().rev().enumerate() {
            for bit in 0..8 {
                if byte & (1 << bit) != 0
                    && let Ok(offset) = u16::try_from(i * 8 + bit)
                {
                    set.insert(offset);
                }
            }
        }
        Bitmap(set)
    }

    /// Without leading zeros.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Some(last) = self.0.last() else {
            return Vec::new();
        };
        let mut bytes = vec![0; usize::from(*last) / 8 + 1];
        for offset in &self.0 {
            let at = bytes.len() - 1 - usize::from(*offset) / 8;
            bytes[at] |= 1 << (offset % 8);
        }
        bytes
    }
}

/// Why a port cannot be had; the text ends up in a field error.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("provided port is already allocated")]
    Taken,
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    OutOfRange(String),
    #[error("range is full")]
    Full,
    #[error(transparent)]
    Failed(#[from] Status),
}

pub struct NodePorts {
    pub storage: Arc<dyn Storage>,
    pub keys: Keys,
    /// `--service-node-port-range`
    pub range: PortRange,
    pub random: fn() -> u64,
    pub metrics: Arc<Metrics>,
}

fn failed(e: StorageError) -> Status {
    Status::internal(e)
}

impl NodePorts {
    fn key(&self) -> String {
        self.keys.object(KEY.0, "", KEY.1)
    }

    fn message(&self) -> Result<&'static schema::Message, Status> {
        schema::kind("", "v1", "RangeAllocation")
            .ok_or_else(|| Status::internal("no RangeAllocation"))
    }

    fn decode(&self, kv: &KeyValue) -> Result<(Value, Bitmap), Status> {
        let unknown = codec::envelope::decode(&kv.value).map_err(Status::internal)?;
        let object =
            codec::tree::from_proto(self.message()?, unknown.raw).map_err(Status::internal)?;
        let data = object["data"].as_str().unwrap_or_default();
        let bitmap = if object["range"] == self.range.to_string() {
            Bitmap::from_bytes(&STANDARD.decode(data).unwrap_or_default())
        } else {
            // Another range: what is in use is found again by repair.
            Bitmap::default()
        };
        Ok((object, bitmap))
    }

    /// Changes the bitmap in one transaction, again if somebody else did meanwhile.
    async fn change<T>(
        &self,
        dry_run: bool,
        change: impl Fn(&mut Bitmap) -> Result<T, PortError>,
    ) -> Result<T, PortError> {
        let key = self.key();
        loop {
            let found = self.storage.get(&key, 0).await.map_err(failed)?;
            let (mut object, mut bitmap) = match &found {
                Some(kv) => self.decode(kv)?,
                None => (json!({"metadata": {}}), Bitmap::default()),
            };
            let before = bitmap.clone();
            let result = change(&mut bitmap)?;
            if dry_run || (bitmap == before && found.is_some()) {
                self.metrics.ports(before.0.len(), self.range.size);
                return Ok(result);
            }
            object["range"] = json!(self.range.to_string());
            object["data"] = json!(STANDARD.encode(bitmap.to_bytes()));
            let mut raw = Vec::new();
            codec::tree::to_proto(self.message()?, &object, &mut raw).map_err(Status::internal)?;
            let bytes = codec::envelope::encode("v1", "RangeAllocation", &raw);
            let written = match &found {
                Some(kv) => {
                    self.storage
                        .update(&key, bytes.into(), kv.mod_revision, None)
                        .await
                }
                None => self.storage.create(&key, bytes.into(), None).await,
            };
            match written {
                Ok(_) => {
                    self.metrics.ports(bitmap.0.len(), self.range.size);
                    return Ok(result);
                }
                Err(
                    StorageError::Conflict { .. }
                    | StorageError::Exists(_)
                    | StorageError::NotFound(_),
                ) => {}
                Err(e) => return Err(failed(e).into()),
            }
        }
    }

    fn offset(&self, port: u16) -> Option<u16> {
        port.checked_sub(self.range.first)
            .filter(|offset| *offset < self.range.size)
    }

    /// Takes a number that somebody asks for, whatever it is. In a dry run none is given back for
    /// one outside of the range: nobody can have it, which is all that upstream looks at then.
    pub async fn take(&self, port: i64, dry_run: bool) -> Result<Option<u16>, PortError> {
        let asked = u16::try_from(port).ok();
        let known = asked.and_then(|port| Some((port, self.offset(port)?)));
        let Some((port, offset)) = known else {
            return match dry_run {
                true => Ok(None),
                false => Err(PortError::OutOfRange(self.range.to_string())),
            };
        };
        let taken = self
            .change(dry_run, |bitmap| match bitmap.0.insert(offset) {
                true => Ok(()),
                false => Err(PortError::Taken),
            })
            .await;
        if !dry_run {
            self.metrics.port(STATIC, taken.is_ok());
        }
        taken.map(|()| Some(port))
    }

    pub async fn take_any(&self) -> Result<u16, PortError> {
        let random = (self.random)();
        let size = u64::from(self.range.size);
        let offset = self
            .change(false, |bitmap| {
                range::candidates(size, range::reserved_ports(size), random)
                    .map(|offset| offset as u16)
                    .find(|offset| bitmap.0.insert(*offset))
                    .ok_or(PortError::Full)
            })
            .await;
        self.metrics.port(DYNAMIC, offset.is_ok());
        Ok(self.range.first + offset?)
    }

    pub async fn release(&self, ports: impl IntoIterator<Item = u16>) {
        let offsets: Vec<u16> = ports.into_iter().filter_map(|p| self.offset(p)).collect();
        if offsets.is_empty() {
            return;
        }
        let released = self
            .change(false, |bitmap| {
                for offset in &offsets {
                    bitmap.0.remove(offset);
                }
                Ok(())
            })
            .await;
        if let Err(e) = released {
            tracing::warn!(error = %e, "node ports could not be released; repair will do it");
        }
    }

    /// Marks what is in use; what is marked and not in use stays for `leaked` to judge. Says
    /// which ports those are.
    pub async fn reconcile(
        &self,
        in_use: &BTreeSet<u16>,
        leaked: &BTreeSet<u16>,
    ) -> Result<BTreeSet<u16>, PortError> {
        self.change(false, |bitmap| {
            let used: BTreeSet<u16> = in_use.iter().filter_map(|p| self.offset(*p)).collect();
            bitmap.0.extend(&used);
            for port in leaked {
                if let Some(offset) = self.offset(*port)
                    && !used.contains(&offset)
                {
                    bitmap.0.remove(&offset);
                }
            }
            Ok(bitmap
                .0
                .difference(&used)
                .map(|offset| self.range.first + offset)
                .collect())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitmap_is_a_big_endian_number() {
        let bitmap = Bitmap(BTreeSet::from([0, 9, 17]));
        assert_eq!(bitmap.to_bytes(), [0b10, 0b10, 0b1]);
        assert_eq!(Bitmap::from_bytes(&bitmap.to_bytes()), bitmap);
        assert_eq!(Bitmap::default().to_bytes(), [0u8; 0]);
        assert_eq!(Bitmap::from_bytes(&[0, 1]), Bitmap(BTreeSet::from([0])));
    }
}
