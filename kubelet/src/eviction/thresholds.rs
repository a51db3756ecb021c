//! What is configured: which signal must not fall below what, for how long, and how much more is to
//! be free before all is well again. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use component::flags::GoDuration;
use meta::Quantity;
use meta::quantity::{Format, ParseQuantityError};
use thiserror::Error;

use super::disks::Disks;
use crate::config::KubeletConfiguration;

/// What is measured. In the order in which thresholds are acted upon: memory before all others, for
/// the kernel kills by its own lights where there is none left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Bytes: what the node has but for its working set.
    MemoryAvailable,
    /// Bytes: what all pods together may have but for their working set.
    AllocatableMemoryAvailable,
    /// Of the file system that the kubelet keeps volumes and logs on: bytes, inodes.
    NodeFsAvailable,
    NodeFsInodesFree,
    /// Of the one that the runtime keeps images on, and layers of containers unless they have one
    /// of their own.
    ImageFsAvailable,
    ImageFsInodesFree,
    /// Of the one that the runtime keeps containers' layers on.
    ContainerFsAvailable,
    ContainerFsInodesFree,
    /// Processes, threads included, that may still be started.
    PidAvailable,
}

/// What a signal is about, by the name that messages give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Memory,
    EphemeralStorage,
    Inodes,
    Pids,
}

impl Resource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// How its amounts are written.
    pub fn format(self) -> Format {
        match self {
            Self::Memory | Self::EphemeralStorage => Format::BinarySI,
            Self::Inodes | Self::Pids => Format::DecimalSI,
        }
    }
}

impl Signal {
    pub const ALL: [Self; 9] = [
        Self::MemoryAvailable,
        Self::AllocatableMemoryAvailable,
        Self::NodeFsAvailable,
        Self::NodeFsInodesFree,
        Self::ImageFsAvailable,
        Self::ImageFsInodesFree,
        Self::ContainerFsAvailable,
        Self::ContainerFsInodesFree,
        Self::PidAvailable,
    ];

    /// As configurations and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::AllocatableMemoryAvailable => "allocatableMemory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::ContainerFsAvailable => "containerfs.available",
            Self::ContainerFsInodesFree => "containerfs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    pub fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Resource::Memory,
            Self::NodeFsAvailable | Self::ImageFsAvailable | Self::ContainerFsAvailable => {
                Resource::EphemeralStorage
            }
            Self::NodeFsInodesFree | Self::ImageFsInodesFree | Self::ContainerFsInodesFree => {
                Resource::Inodes
            }
            Self::PidAvailable => Resource::Pids,
        }
    }

    fn parse(name: &str) -> Result<Self, ThresholdError> {
        let known = Self::ALL.into_iter().find(|signal| signal.name() == name);
        known.ok_or_else(|| ThresholdError::Unsupported(name.to_owned()))
    }
}

/// Why a configuration of thresholds makes no sense.
#[derive(Debug, Error, PartialEq)]
pub enum ThresholdError {
    #[error("unsupported eviction signal {0}")]
    Unsupported(String),
    #[error("eviction threshold {0} {1:?}: {2}")]
    Quantity(&'static str, String, ParseQuantityError),
    #[error("eviction threshold {0}: {1:?} is no percentage")]
    Percentage(&'static str, String),
    #[error("eviction percentage threshold {0} must be >= 0%: {1}")]
    BelowZero(&'static str, String),
    #[error("eviction percentage threshold {0} must be <= 100%: {1}")]
    AboveAll(&'static str, String),
    #[error("eviction threshold {0} must be positive: {1}")]
    NotPositive(&'static str, String),
    #[error("eviction grace period of {0}: {1:?} is no duration")]
    Duration(&'static str, String),
    #[error("invalid eviction grace period specified: {0}, must be a positive value")]
    NegativeGrace(String),
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGrace(&'static str),
    #[error("eviction percentage minimum reclaim {0} must be positive: {1}")]
    ReclaimPercentage(&'static str, String),
    #[error("negative eviction minimum reclaim specified for {0}")]
    NegativeReclaim(&'static str),
}

/// So much, or such a share of the whole. Single precision, as upstream's: a node's allocatable
/// resources depend on the last digit.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Quantity(Quantity),
    Share(f32),
}

impl Value {
    pub fn of(&self, capacity: i64) -> Quantity {
        match self {
            Self::Quantity(quantity) => quantity.clone(),
            Self::Share(share) => {
                let amount = (capacity as f64 * f64::from(*share)) as i64;
                Quantity::new(amount, Format::BinarySI)
            }
        }
    }
}

/// What must not be fallen below.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub value: Value,
    /// For how long it may be fallen below; zero: not at all.
    pub grace: Duration,
    /// Once it has been, so much more must be free until all is well.
    pub min_reclaim: Option<Value>,
}

impl Threshold {
    /// Whether pods end without being asked how long they need.
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}

/// How pods are evicted: the whole configuration of it.
#[derive(Debug, Clone)]
pub struct Policy {
    /// By signal, the hard ones of a signal first.
    pub thresholds: Vec<Threshold>,
    /// For how long a pressure is shown after it was last there.
    pub transition_period: Duration,
    /// Seconds that a pod gets at most when it ends for a soft threshold.
    pub max_pod_grace: i64,
    /// Whether pods end that use more of the disk than they may.
    pub local_limits: bool,
    /// How old a measurement of a pod's volumes may be when limits are looked at; `None`: volumes
    /// are not measured for that.
    pub volume_age: Option<Duration>,
    /// What hard thresholds keep from pods.
    pub kept: Kept,
}

/// What is never allocatable, for evictions would begin before it is used.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub memory: Option<Value>,
    pub node_fs: Option<Value>,
}

impl Kept {
    fn of(hard: &[Threshold]) -> Self {
        let find = |signal| {
            let mut hard = hard.iter().filter(|threshold| threshold.signal == signal);
            hard.next().map(|threshold| threshold.value.clone())
        };
        Self {
            memory: find(Signal::MemoryAvailable),
            node_fs: find(Signal::NodeFsAvailable),
        }
    }
}

impl Policy {
    /// Reads and checks it.
    ///
    /// # Errors
    /// For a signal that does not exist, an amount that is none, and a soft threshold without a
    /// grace period.
    pub fn new(config: &KubeletConfiguration) -> Result<Self, ThresholdError> {
        let mut hard = match &config.eviction_hard {
            Some(statements) => thresholds(statements)?,
            None => Vec::new(),
        };
        let mut soft = thresholds(&config.eviction_soft)?;
        let graces = graces(&config.eviction_soft_grace_period)?;
        for threshold in &mut soft {
            let name = threshold.signal.name();
            let grace = graces.get(&threshold.signal);
            threshold.grace = *grace.ok_or(ThresholdError::NoGrace(name))?;
        }
        let kept = Kept::of(&hard);
        hard.append(&mut soft);
        let mut all = hard;
        let reclaims = reclaims(&config.eviction_minimum_reclaim)?;
        for threshold in &mut all {
            threshold.min_reclaim = reclaims.get(&threshold.signal).cloned();
        }
        let enforced = &config.enforce_node_allocatable;
        if enforced.iter().any(|level| level == "pods") {
            let memory = |threshold: &&Threshold| {
                threshold.signal == Signal::MemoryAvailable && threshold.is_hard()
            };
            let of_pods = all.iter().filter(memory).map(|threshold| Threshold {
                signal: Signal::AllocatableMemoryAvailable,
                ..threshold.clone()
            });
            let of_pods: Vec<_> = of_pods.collect();
            all.extend(of_pods);
        }
        sort(&mut all);
        let volume_age = config.volume_stats_agg_period;
        Ok(Self {
            thresholds: all,
            transition_period: config.eviction_pressure_transition_period.get(),
            max_pod_grace: config.eviction_max_pod_grace_period.into(),
            local_limits: config.local_storage_capacity_isolation,
            volume_age: (!volume_age.is_negative()).then(|| volume_age.get()),
            kept,
        })
    }

    /// `--experimental-allocatable-ignore-eviction`: what is allocatable does not depend on
    /// thresholds, nor do thresholds on it.
    pub fn leave_allocatable(&mut self) {
        self.kept = Kept::default();
        let own = |threshold: &Threshold| threshold.signal != Signal::AllocatableMemoryAvailable;
        self.thresholds.retain(own);
    }
}

fn sort(thresholds: &mut [Threshold]) {
    thresholds.sort_by_key(|threshold| (threshold.signal, !threshold.is_hard()));
}

/// The thresholds, with those of the containers' file system: they are always those of the one that
/// it is part of, whatever is configured for it.
pub fn with_container_fs(thresholds: &[Threshold], disks: Disks) -> Vec<Threshold> {
    use Signal::*;
    let mut all: Vec<Threshold> = thresholds
        .iter()
        .filter(|t| !matches!(t.signal, ContainerFsAvailable | ContainerFsInodesFree))
        .cloned()
        .collect();
    let (bytes, inodes) = match disks {
        Disks::ImagesApart => (ImageFsAvailable, ImageFsInodesFree),
        Disks::One | Disks::Split => (NodeFsAvailable, NodeFsInodesFree),
    };
    let pairs = [
        (bytes, ContainerFsAvailable),
        (inodes, ContainerFsInodesFree),
    ];
    for (from, signal) in pairs {
        let same: Vec<_> = all.iter().filter(|t| t.signal == from).cloned().collect();
        all.extend(same.into_iter().map(|t| Threshold { signal, ..t }));
    }
    sort(&mut all);
    all
}

fn thresholds(statements: &BTreeMap<String, String>) -> Result<Vec<Threshold>, ThresholdError> {
    let mut all = Vec::new();
    for (name, text) in statements {
        let signal = Signal::parse(name)?;
        all.extend(value(signal.name(), text)?.map(|value| Threshold {
            signal,
            value,
            grace: Duration::ZERO,
            min_reclaim: None,
        }));
    }
    Ok(all)
}

/// `None` for nothing and for all, which are no thresholds.
fn value(signal: &'static str, text: &str) -> Result<Option<Value>, ThresholdError> {
    if let "0%" | "100%" = text {
        return Ok(None);
    }
    if let Some(share) = share(signal, text)? {
        return match share {
            share if share < 0.0 => Err(ThresholdError::BelowZero(signal, text.into())),
            share if share > 1.0 => Err(ThresholdError::AboveAll(signal, text.into())),
            share => Ok(Some(Value::Share(share))),
        };
    }
    let quantity = quantity(signal, text)?;
    if quantity.sign() <= 0 {
        let quantity = quantity.to_string();
        return Err(ThresholdError::NotPositive(signal, quantity));
    }
    Ok(Some(Value::Quantity(quantity)))
}

fn share(signal: &'static str, text: &str) -> Result<Option<f32>, ThresholdError> {
    if !text.ends_with('%') {
        return Ok(None);
    }
    let number = text.trim_end_matches('%').parse::<f32>();
    let number = number.ok().filter(|number| number.is_finite());
    let percent = number.ok_or_else(|| ThresholdError::Percentage(signal, text.into()))?;
    Ok(Some(percent / 100.0))
}

fn quantity(signal: &'static str, text: &str) -> Result<Quantity, ThresholdError> {
    let wrong = |error| ThresholdError::Quantity(signal, text.to_owned(), error);
    text.parse().map_err(wrong)
}

fn graces(
    statements: &BTreeMap<String, String>,
) -> Result<HashMap<Signal, Duration>, ThresholdError> {
    let each = statements.iter().map(|(name, text)| {
        let signal = Signal::parse(name)?;
        let grace = text.parse::<GoDuration>();
        let grace = grace.map_err(|_| ThresholdError::Duration(signal.name(), text.clone()))?;
        if grace.is_negative() {
            return Err(ThresholdError::NegativeGrace(text.clone()));
        }
        Ok((signal, grace.get()))
    });
    each.collect()
}

fn reclaims(
    statements: &BTreeMap<String, String>,
) -> Result<HashMap<Signal, Value>, ThresholdError> {
    let each = statements.iter().map(|(name, text)| {
        let signal = Signal::parse(name)?;
        let name = signal.name();
        if let Some(share) = share(name, text)? {
            return match share > 0.0 {
                true => Ok((signal, Value::Share(share))),
                false => Err(ThresholdError::ReclaimPercentage(name, text.clone())),
            };
        }
        let quantity = quantity(name, text)?;
        match quantity.is_negative() {
            true => Err(ThresholdError::NegativeReclaim(name)),
            false => Ok((signal, Value::Quantity(quantity))),
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn policy(config: Json) -> Result<Policy, ThresholdError> {
        Policy::new(&serde_json::from_value(config).unwrap())
    }

    /// `signal value grace +reclaim`, a line each.
    fn shown(thresholds: &[Threshold]) -> Vec<String> {
        let amount = |value: &Value| value.of(1000).to_string();
        let line = |t: &Threshold| {
            let reclaim = t.min_reclaim.as_ref();
            let reclaim = reclaim.map_or(String::new(), |more| format!(" +{}", amount(more)));
            let (name, value) = (t.signal.name(), amount(&t.value));
            format!("{name} {value} {}s{reclaim}", t.grace.as_secs())
        };
        thresholds.iter().map(line).collect()
    }

    #[test]
    fn a_configuration() {
        let config = json!({
            "evictionHard": {"nodefs.available": "10%", "memory.available": "100Mi", "imagefs.available": "0%",
                "imagefs.inodesFree": "100%", "pid.available": "1k"},
            "evictionSoft": {"memory.available": "1.5Gi", "nodefs.available": "15%"},
            "evictionSoftGracePeriod": {"memory.available": "1m30s", "nodefs.available": "2m", "pid.available": "1s"},
            "evictionMinimumReclaim": {"memory.available": "0", "nodefs.available": "1%"},
        });
        let policy = policy(config).unwrap();
        assert_eq!(
            shown(&policy.thresholds),
            [
                "memory.available 100Mi 0s +0",
                "memory.available 1536Mi 90s +0",
                "allocatableMemory.available 100Mi 0s +0",
                "nodefs.available 100 0s +9",
                "nodefs.available 150 120s +9",
                "pid.available 1k 0s",
            ]
        );
        let kept = |value: &Option<Value>| value.as_ref().unwrap().of(1 << 30).value();
        assert_eq!(kept(&policy.kept.memory), 100 << 20);
        // Not a tenth, but what is nearest to it in single precision.
        assert_eq!(kept(&policy.kept.node_fs), 107_374_184);
    }

    #[test]
    fn the_pods_memory_is_watched_where_it_is_limited() {
        let config = json!({"evictionHard": {"memory.available": "1Mi"}, "enforceNodeAllocatable": ["none"]});
        let thresholds = policy(config).unwrap().thresholds;
        assert_eq!(shown(&thresholds), ["memory.available 1Mi 0s"]);
    }

    #[test]
    fn the_containers_disk_follows_the_one_that_it_is() {
        let config = json!({"enforceNodeAllocatable": [], "evictionHard": {"nodefs.available": "1Gi",
            "imagefs.available": "2Gi", "containerfs.available": "5Gi", "imagefs.inodesFree": "7"}});
        let thresholds = policy(config).unwrap().thresholds;
        let of = |disks| {
            let all = shown(&with_container_fs(&thresholds, disks));
            let own = all.into_iter().filter(|line| line.starts_with("container"));
            own.collect::<Vec<_>>()
        };
        assert_eq!(of(Disks::One), ["containerfs.available 1Gi 0s"]);
        assert_eq!(of(Disks::Split), ["containerfs.available 1Gi 0s"]);
        assert_eq!(
            of(Disks::ImagesApart),
            [
                "containerfs.available 2Gi 0s",
                "containerfs.inodesFree 7 0s"
            ]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let hard = |name: &str, text: &str| json!({"evictionHard": {name: text}});
        let grace = |name: &str, text: &str| json!({"evictionSoft": {name: "1Gi"}, "evictionSoftGracePeriod": {name: text}});
        let reclaim = |text: &str| json!({"evictionMinimumReclaim": {"memory.available": text}});
        for (config, why) in [
            (hard("cpu", "1"), "unsupported eviction signal cpu"),
            (
                hard("memory.available", "-1%"),
                "eviction percentage threshold memory.available must be >= 0%: -1%",
            ),
            (
                hard("memory.available", "101%"),
                "eviction percentage threshold memory.available must be <= 100%: 101%",
            ),
            (
                hard("memory.available", "x%"),
                "eviction threshold memory.available: \"x%\" is no percentage",
            ),
            (
                hard("memory.available", "-1Gi"),
                "eviction threshold memory.available must be positive: -1Gi",
            ),
            (
                hard("memory.available", "0"),
                "eviction threshold memory.available must be positive: 0",
            ),
            (
                json!({"evictionSoft": {"memory.available": "1Gi"}}),
                "grace period must be specified for the soft eviction threshold memory.available",
            ),
            (
                grace("memory.available", "-1s"),
                "invalid eviction grace period specified: -1s, must be a positive value",
            ),
            (
                grace("memory.available", "soon"),
                "eviction grace period of memory.available: \"soon\" is no duration",
            ),
            (
                reclaim("0%"),
                "eviction percentage minimum reclaim memory.available must be positive: 0%",
            ),
            (
                reclaim("-1"),
                "negative eviction minimum reclaim specified for memory.available",
            ),
        ] {
            let error = policy(config.clone()).unwrap_err();
            assert_eq!(error.to_string(), why, "{config}");
        }
        let error = policy(hard("memory.available", "many")).unwrap_err();
        assert!(matches!(error, ThresholdError::Quantity(..)), "{error}");
    }
}
