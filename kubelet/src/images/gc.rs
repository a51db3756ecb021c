//! Images that nobody uses go: those that have not been used for long, and, once the disk is fuller
//! than it should be, those used longest ago until it is not; all of them before a pod is evicted.
//! Never one that a container has, ran or not, or that the runtime has pinned.
//!
//! What is to go is decided by [`Records`], purely.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grpc::cri;
use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::records::Records as Pulls;
use crate::cri::client::{CriClient, CriError, Of};
use crate::events::{Events, Kind};
use crate::metrics::Metrics;
use crate::sys;

/// Upstream's `ImageGCPeriod`.
const EVERY: Duration = Duration::from_secs(300);

/// When images go.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Percent of the disk: above the first, images go until it is below the second.
    pub high: u64,
    pub low: u64,
    /// An image younger than this may be about to be used.
    pub min_age: Duration,
    /// One that has not been used for so long goes in any case; zero: none does.
    pub max_age: Duration,
}

/// Why there is less room than there should be.
#[derive(Debug, Error)]
pub enum ImageGcError {
    #[error(transparent)]
    Runtime(#[from] CriError),
    #[error("the runtime does not tell where it keeps images")]
    Unknown,
    #[error("cannot look at {0}: {1}")]
    Disk(String, std::io::Error),
    #[error("invalid capacity 0 on image filesystem")]
    NoCapacity,
    #[error(
        "wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}"
    )]
    Delete {
        wanted: u64,
        freed: u64,
        errors: String,
    },
    #[error(
        "Insufficient free disk space on the node's image filesystem ({used}% of {capacity} used). Failed to free \
         sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used \
         by active images, logs, volumes, or other data."
    )]
    NotEnough {
        used: u64,
        capacity: String,
        freed: u64,
    },
}

#[derive(Debug, Clone)]
struct Record {
    first_seen: Instant,
    last_used: Option<Instant>,
    size: u64,
    pinned: bool,
}

/// An image that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: String,
    pub size: u64,
    first_seen: Instant,
    last_used: Option<Instant>,
}

/// What is known of the node's images, by id.
#[derive(Debug, Default)]
pub struct Records(HashMap<String, Record>);

impl Records {
    /// Takes in what there is now, and returns what may go: used longest ago first.
    fn observe(
        &mut self,
        images: &[cri::Image],
        in_use: &HashSet<String>,
        now: Instant,
    ) -> Vec<Candidate> {
        for image in images {
            let record = self.0.entry(image.id.clone()).or_insert(Record {
                first_seen: now,
                last_used: None,
                size: 0,
                pinned: false,
            });
            record.size = image.size;
            record.pinned = image.pinned;
            if in_use.contains(&image.id) {
                record.last_used = Some(now);
            }
        }
        let there: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.0.retain(|id, _| there.contains(id.as_str()));
        let free = self
            .0
            .iter()
            .filter(|(id, record)| !record.pinned && !in_use.contains(*id));
        let mut candidates: Vec<Candidate> = free
            .map(|(id, record)| Candidate {
                id: id.clone(),
                size: record.size,
                first_seen: record.first_seen,
                last_used: record.last_used,
            })
            .collect();
        candidates.sort_by(|a, b| {
            let key = |c: &Candidate| (c.last_used, c.first_seen);
            key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
        });
        candidates
    }
}

impl Candidate {
    /// Whether it has not been used for as long as `age`, as far as is known since `began`.
    fn is_old(&self, age: Duration, began: Instant, now: Instant) -> bool {
        let since = self.last_used.unwrap_or(self.first_seen);
        !age.is_zero()
            && now.duration_since(began) > age
            && now.saturating_duration_since(since) > age
    }

    fn is_young(&self, age: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.first_seen) < age
    }
}

/// How many bytes are to be freed, and how many percent are used; `None` where there is room.
fn excess(policy: &Policy, capacity: u64, available: u64) -> Option<(u64, u64)> {
    let available = available.min(capacity);
    let used = 100 - available * 100 / capacity.max(1);
    let wanted = capacity.saturating_mul(100 - policy.low) / 100;
    (used >= policy.high).then(|| (wanted.saturating_sub(available), used))
}

/// As people read it: `1.5 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// Sees to it.
pub struct ImageGc {
    client: CriClient,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    policy: Policy,
    /// Of pulls: those of images that are gone go, too.
    pulls: Option<Arc<Pulls>>,
    began: Instant,
    /// Held while images are removed: once at a time.
    records: Mutex<Records>,
}

impl ImageGc {
    pub fn new(
        client: CriClient,
        events: Arc<Events>,
        metrics: Arc<Metrics>,
        policy: Policy,
        pulls: Option<Arc<Pulls>>,
    ) -> Self {
        Self {
            client,
            events,
            metrics,
            policy,
            pulls,
            began: Instant::now(),
            records: Mutex::default(),
        }
    }

    /// Runs until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Where nothing would ever go by itself, it is still to be known what is young.
        let watches_only = self.policy.high >= 100 && self.policy.max_age.is_zero();
        let mut failed = false;
        loop {
            let mut records = self.records.lock().await;
            let result = match watches_only {
                true => self.watch(&mut records).await,
                false => self.collect(&mut records).await,
            };
            drop(records);
            match result {
                Ok(()) => failed = false,
                Err(error) => {
                    warn!(%error, "cannot collect images");
                    let event = |reason, text: &str| self.events.node(Kind::Warning, reason, text);
                    match &error {
                        ImageGcError::NotEnough { .. } => {
                            event("FreeDiskSpaceFailed", &error.to_string());
                        }
                        ImageGcError::NoCapacity => {
                            event("InvalidDiskCapacity", &error.to_string());
                        }
                        _ => {}
                    }
                    // The first time the runtime may not have looked at its disk yet.
                    if std::mem::replace(&mut failed, true) {
                        event("ImageGCFailed", &error.to_string());
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Removes every image that nobody uses, but for those that are about to be used.
    ///
    /// # Errors
    /// When the runtime cannot be asked, or does not remove one.
    pub async fn delete_unused(&self) -> Result<(), ImageGcError> {
        let mut records = self.records.lock().await;
        let began = Timestamp::now();
        let (candidates, now) = self.candidates(&mut records).await?;
        let all = i64::MAX.unsigned_abs();
        let (freed, errors) = self.free(candidates, all, now).await;
        self.prune(began).await?;
        failures(errors, all, freed)
    }

    /// Forgets how images were pulled that are gone.
    async fn prune(&self, began: Timestamp) -> Result<(), CriError> {
        if let Some(pulls) = &self.pulls {
            let images = self.client.list_images().await?.into_iter();
            pulls.prune(&images.map(|image| image.id).collect(), began);
        }
        Ok(())
    }

    /// Takes in which images there are, and no more.
    async fn watch(&self, records: &mut Records) -> Result<(), ImageGcError> {
        let images = self.client.list_images().await?;
        records.observe(&images, &HashSet::new(), Instant::now());
        Ok(())
    }

    /// What may go as of now.
    async fn candidates(
        &self,
        records: &mut Records,
    ) -> Result<(Vec<Candidate>, Instant), ImageGcError> {
        let images = self.client.list_images().await?;
        let in_use = self.in_use(&images).await?;
        let now = Instant::now();
        Ok((records.observe(&images, &in_use, now), now))
    }

    /// Removes images until so many bytes are free. How many are, and what went wrong.
    async fn free(
        &self,
        candidates: Vec<Candidate>,
        wanted: u64,
        now: Instant,
    ) -> (u64, Vec<String>) {
        let (mut freed, mut errors) = (0, Vec::new());
        for candidate in candidates {
            if freed >= wanted {
                break;
            }
            if candidate.is_young(self.policy.min_age, now) {
                continue;
            }
            match self.remove(&candidate, "space").await {
                Ok(()) => freed += candidate.size,
                Err(error) => errors.push(error.to_string()),
            }
        }
        (freed, errors)
    }

    async fn collect(&self, records: &mut Records) -> Result<(), ImageGcError> {
        let began = Timestamp::now();
        let (mut candidates, now) = self.candidates(records).await?;
        let mut errors = Vec::new();
        let old = |candidate: &Candidate| candidate.is_old(self.policy.max_age, self.began, now);
        let (aged, rest): (Vec<_>, Vec<_>) = candidates.drain(..).partition(old);
        for candidate in aged {
            if let Err(error) = self.remove(&candidate, "age").await {
                errors.push(error.to_string());
            }
        }
        let (capacity, available) = self.room().await?;
        if capacity == 0 {
            return Err(ImageGcError::NoCapacity);
        }
        let Some((wanted, used)) = excess(&self.policy, capacity, available) else {
            return failures(errors, 0, 0);
        };
        info!(used, wanted, "the images' disk is fuller than it should be");
        let (freed, more) = self.free(rest, wanted, now).await;
        errors.extend(more);
        failures(errors, wanted, freed)?;
        self.prune(began).await?;
        if freed < wanted {
            let capacity = size(capacity);
            return Err(ImageGcError::NotEnough {
                used,
                capacity,
                freed,
            });
        }
        Ok(())
    }

    async fn remove(&self, image: &Candidate, reason: &str) -> Result<(), CriError> {
        info!(
            image = image.id,
            size = image.size,
            reason,
            "removing an image"
        );
        self.client.remove_image(&image.id).await?;
        self.metrics
            .images_collected
            .with_label_values(&[reason])
            .inc();
        Ok(())
    }

    /// The images that containers were made from, or have mounted.
    async fn in_use(&self, images: &[cri::Image]) -> Result<HashSet<String>, CriError> {
        let mut in_use = HashSet::new();
        for container in self.client.list_containers(Of::default()).await? {
            let id = if container.image_id.is_empty() {
                container.image_ref
            } else {
                container.image_id
            };
            in_use.insert(id);
            let Some(status) = self.client.container_status(&container.id).await? else {
                continue;
            };
            in_use.insert(status.image_ref);
            let mounted = status.mounts.into_iter().filter_map(|mount| mount.image);
            in_use.extend(mounted.map(|image| image.image));
        }
        // Whoever uses an image by another name than its id uses it all the same.
        let named = |image: &&cri::Image| {
            let mut names = image.repo_tags.iter().chain(&image.repo_digests);
            names.any(|name| in_use.contains(name))
        };
        let ids: Vec<String> = images.iter().filter(named).map(|i| i.id.clone()).collect();
        in_use.extend(ids);
        Ok(in_use)
    }

    /// Capacity and available bytes of the disk that images lie on.
    async fn room(&self) -> Result<(u64, u64), ImageGcError> {
        let paths = self.client.image_fs().await?;
        let path = paths.ok_or(ImageGcError::Unknown)?.images;
        let usage = sys::fs::usage(Path::new(&path));
        let usage = usage.map_err(|error| ImageGcError::Disk(path, error))?;
        Ok((usage.capacity, usage.available))
    }
}

fn failures(errors: Vec<String>, wanted: u64, freed: u64) -> Result<(), ImageGcError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ImageGcError::Delete {
        wanted,
        freed,
        errors: errors.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, pinned: bool) -> cri::Image {
        cri::Image {
            id: id.into(),
            size: 10,
            pinned,
            ..Default::default()
        }
    }

    fn ids(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|c| c.id.as_str()).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let (mut records, start) = (Records::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let images = ["a", "b", "c"].map(|id| image(id, false));
        let pinned = image("pause", true);
        let all = [images.as_slice(), &[pinned]].concat();
        let used = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let first = records.observe(&all, &used(&["a"]), start);
        assert_eq!(ids(&first), ["b", "c"], "neither used nor pinned");
        records.observe(&all, &used(&["b"]), at(10));
        let now = records.observe(&all, &HashSet::new(), at(20));
        assert_eq!(ids(&now), ["c", "a", "b"]);
        // An image that comes anew is young, whatever had its id before.
        records.observe(&all[1..], &HashSet::new(), at(30));
        let now = records.observe(&all, &HashSet::new(), at(40));
        assert_eq!(ids(&now), ["c", "a", "b"]);
        let young = |c: &Candidate| c.is_young(Duration::from_secs(30), at(41));
        let young: Vec<_> = now
            .iter()
            .filter(|c| young(c))
            .map(|c| c.id.as_str())
            .collect();
        assert_eq!(young, ["a"]);
    }

    #[test]
    fn what_is_old_goes_in_any_case() {
        let (mut records, start) = (Records::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let used = HashSet::from(["a".to_owned()]);
        let images = ["a", "b"].map(|id| image(id, false));
        records.observe(&images, &used, start);
        records.observe(&images, &used, at(50));
        let now = records.observe(&images, &HashSet::new(), at(101));
        let old = |age: u64, began| -> Vec<&str> {
            let age = Duration::from_secs(age);
            let old = now.iter().filter(|c| c.is_old(age, began, at(101)));
            old.map(|c| c.id.as_str()).collect()
        };
        assert_eq!(old(100, start), ["b"]);
        assert_eq!(
            old(100, at(10)),
            Vec::<&str>::new(),
            "not known for long enough"
        );
        assert_eq!(old(0, start), Vec::<&str>::new());
        assert_eq!(old(50, start), ["b", "a"]);
    }

    #[test]
    fn how_much_is_to_go() {
        let policy = Policy {
            high: 85,
            low: 80,
            min_age: Duration::ZERO,
            max_age: Duration::ZERO,
        };
        assert_eq!(excess(&policy, 1000, 160), None);
        assert_eq!(excess(&policy, 1000, 150), Some((50, 85)));
        assert_eq!(excess(&policy, 1000, 2000), None);
        let sizes = [size(1), size(1536), size(3 << 30), size(5 << 50)];
        assert_eq!(sizes, ["1 B", "1.5 KiB", "3.0 GiB", "5120.0 TiB"]);
    }
}
