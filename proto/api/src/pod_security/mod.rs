//! The Pod Security Standards: which pods are baseline and which are restricted, in each of the
//! versions of these policies, and which policy a namespace's labels ask for.
//!
//! One file per group of checks; `CHECKS` lists them. What must not be here: exemptions and
//! defaults of a cluster, answers to requests (the admission plugin).

mod host;
mod privileges;
mod profiles;
mod users;
mod volumes;

use std::collections::BTreeMap;
use std::fmt;

use meta::field::{ErrorList, FieldError, Path};
use serde_json::Value;

/// How strict a policy is, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }

    fn parse(text: &str) -> Result<Level, &'static str> {
        let all = [Level::Privileged, Level::Baseline, Level::Restricted];
        all.into_iter()
            .find(|level| level.as_str() == text)
            .ok_or("must be one of privileged, baseline, restricted")
    }
}

/// `v1.<minor>`, or the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    fn parse(text: &str) -> Result<Version, &'static str> {
        let wrong = r#"must be "latest" or "v1.x""#;
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let minor = text.strip_prefix("v1.").ok_or(wrong)?;
        let plain = minor == "0" || !minor.starts_with('0');
        if !plain || !minor.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong);
        }
        minor.parse().map(Version::Minor).map_err(|_| wrong)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Minor(minor) => write!(f, "v1.{minor}"),
            Version::Latest => f.write_str("latest"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl LevelVersion {
    pub const PRIVILEGED: LevelVersion = LevelVersion {
        level: Level::Privileged,
        version: Version::Latest,
    };

    fn is_equivalent(self, other: Self) -> bool {
        self == other || (self.level == Level::Privileged && other.level == Level::Privileged)
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.as_str(), self.version)
    }
}

/// What a namespace asks for in each mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

/// The names of levels and versions as a configuration has them, each under the mode's name and
/// the mode's name with `-version`.
pub const MODES: [&str; 3] = ["enforce", "audit", "warn"];

const PREFIX: &str = "pod-security.kubernetes.io/";

impl Policy {
    pub const PRIVILEGED: Policy = Policy {
        enforce: LevelVersion::PRIVILEGED,
        audit: LevelVersion::PRIVILEGED,
        warn: LevelVersion::PRIVILEGED,
    };

    pub fn modes(&self) -> [LevelVersion; 3] {
        [self.enforce, self.audit, self.warn]
    }

    pub fn is_privileged(&self) -> bool {
        self.modes().iter().all(|m| m.level == Level::Privileged)
    }

    pub fn is_equivalent(&self, other: &Policy) -> bool {
        let pairs = self.modes().into_iter().zip(other.modes());
        pairs.into_iter().all(|(a, b)| a.is_equivalent(b))
    }

    /// The policy of a namespace's labels. There is always one: what cannot be read is enforced
    /// as strictly as possible, and neither warned of nor audited.
    pub fn of_labels(labels: &Value, defaults: &Policy) -> (Policy, ErrorList) {
        let mut policy = *defaults;
        let mut errors = ErrorList::new();
        let get = |name: &str| {
            let key = format!("{PREFIX}{name}");
            let value = labels.get(&key)?.as_str()?;
            Some((key, value))
        };
        let path = Path::new("metadata").child("labels");
        let mut enforced = false;
        let mut mode = |name: &'static str, of: &mut LevelVersion, fallback: Level| {
            let mut said = (false, false);
            if let Some((key, value)) = get(name) {
                said.0 = true;
                of.level = Level::parse(value).unwrap_or_else(|why| {
                    errors.push(FieldError::invalid(&path.key(key), value, why));
                    fallback
                });
                enforced |= name == "enforce" && Level::parse(value).is_ok();
            }
            if let Some((key, value)) = get(&format!("{name}-version")) {
                said.1 = true;
                of.version = Version::parse(value).unwrap_or_else(|why| {
                    errors.push(FieldError::invalid(&path.key(key), value, why));
                    Version::Latest
                });
            }
            said
        };
        mode("enforce", &mut policy.enforce, Level::Restricted);
        mode("audit", &mut policy.audit, Level::Privileged);
        let (level, version) = mode("warn", &mut policy.warn, Level::Privileged);
        // Who enforces a level wants to hear of what controllers will not be able to create.
        if !level && enforced && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !version {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// The policy of a configuration's `defaults`: privileged where nothing is said.
    pub fn of_defaults(defaults: &BTreeMap<String, String>) -> (Policy, ErrorList) {
        let mut errors = ErrorList::new();
        let path = Path::new("defaults");
        let mut read = |mode: &str| {
            let version_name = format!("{mode}-version");
            let get = |name: &str| defaults.get(name).map(String::as_str).unwrap_or_default();
            let (level, version) = (get(mode), get(&version_name));
            let mut parsed = LevelVersion::PRIVILEGED;
            if !level.is_empty() {
                match Level::parse(level) {
                    Ok(level) => parsed.level = level,
                    Err(why) => {
                        let path = path.child(mode.to_owned());
                        errors.push(FieldError::invalid(&path, level, why));
                    }
                }
            }
            if !version.is_empty() {
                match Version::parse(version) {
                    Ok(version) => parsed.version = version,
                    Err(why) => {
                        let path = path.child(version_name.clone());
                        errors.push(FieldError::invalid(&path, version, why));
                    }
                }
            }
            parsed
        };
        let [enforce, audit, warn] = MODES.map(&mut read);
        let policy = Policy {
            enforce,
            audit,
            warn,
        };
        (policy, errors)
    }

    /// The modes that labels set to more than privileged, in short.
    pub fn said_by_labels(&self, labels: &Value) -> String {
        let says = |name: String| labels.get(format!("{PREFIX}{name}")).is_some();
        let said: Vec<String> = MODES
            .into_iter()
            .zip(self.modes())
            .filter(|(_, policy)| policy.level != Level::Privileged)
            .filter(|(mode, _)| says((*mode).to_owned()) || says(format!("{mode}-version")))
            .map(|(mode, policy)| format!("{mode}={policy}"))
            .collect();
        said.join(", ")
    }
}

/// Why a check does not let a pod pass.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Forbidden {
    /// Such as `host namespaces`; for a view of many pods.
    reason: String,
    /// Such as `hostNetwork=true, hostPID=true`; for a view of one.
    detail: String,
}

impl Forbidden {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Self> {
        Some(Self {
            reason: reason.into(),
            detail: detail.into(),
        })
    }
}

/// A pod or a template of one.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

const NULL: &Value = &Value::Null;

impl<'a> Pod<'a> {
    /// All containers: the initializing ones, the others, the ephemeral ones.
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| items(&spec[list]))
    }

    fn security_context(&self) -> &'a Value {
        self.spec.get("securityContext").unwrap_or(NULL)
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// In a user namespace root is nobody.
    fn has_user_namespace(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    /// The names of the containers for which `bad` holds.
    fn bad_containers(&self, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| bad(container))
            .map(name)
            .collect()
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn name(named: &Value) -> &str {
    text(&named["name"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = items
        .into_iter()
        .map(|item| format!("\"{}\"", item.as_ref()))
        .collect();
    quoted.join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, n: usize) -> &'a str {
    if n == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
fn containers(names: &[&str]) -> String {
    let word = plural("container", "containers", names.len());
    format!("{word} {}", quoted(names))
}

/// `pod and containers "a", "b"`; `None` for nobody.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(names));
    }
    (!setters.is_empty()).then(|| setters.join(" and "))
}

/// A rule, as it is from a version on.
struct Revision {
    /// The minor version.
    since: u32,
    check: fn(&Pod<'_>) -> Option<Forbidden>,
}

struct Check {
    level: Level,
    /// A baseline check that this one, being stricter, stands for.
    instead_of: &'static str,
    id: &'static str,
    revisions: &'static [Revision],
}

const fn baseline(id: &'static str, revisions: &'static [Revision]) -> Check {
    Check {
        level: Level::Baseline,
        instead_of: "",
        id,
        revisions,
    }
}

const fn restricted(
    id: &'static str,
    instead_of: &'static str,
    revisions: &'static [Revision],
) -> Check {
    Check {
        level: Level::Restricted,
        instead_of,
        id,
        revisions,
    }
}

const fn since(minor: u32, check: fn(&Pod<'_>) -> Option<Forbidden>) -> Revision {
    Revision {
        since: minor,
        check,
    }
}

/// Every check, in the order in which messages name them.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[since(0, profiles::app_armor)]),
    baseline(
        "capabilities_baseline",
        &[since(0, privileges::added_capabilities)],
    ),
    baseline("hostNamespaces", &[since(0, host::namespaces)]),
    baseline("hostPathVolumes", &[since(0, volumes::host_path)]),
    baseline("hostPorts", &[since(0, host::ports)]),
    baseline("hostProbesAndHostLifecycle", &[since(34, host::probes)]),
    baseline("privileged", &[since(0, privileges::privileged)]),
    baseline(
        "procMount",
        &[
            since(0, volumes::proc_mount),
            since(35, volumes::proc_mount_of_host_users),
        ],
    ),
    baseline(
        "seLinuxOptions",
        &[
            since(0, profiles::selinux),
            since(31, profiles::selinux_1_31),
        ],
    ),
    baseline(
        "seccompProfile_baseline",
        &[
            since(0, profiles::seccomp_annotations),
            since(19, profiles::seccomp),
        ],
    ),
    baseline(
        "sysctls",
        &[
            since(0, host::sysctls),
            since(27, host::sysctls_1_27),
            since(29, host::sysctls_1_29),
            since(32, host::sysctls_1_32),
        ],
    ),
    baseline("windowsHostProcess", &[since(0, host::windows_process)]),
    restricted(
        "allowPrivilegeEscalation",
        "",
        &[
            since(8, privileges::escalation),
            since(25, privileges::escalation_but_windows),
        ],
    ),
    restricted(
        "capabilities_restricted",
        "capabilities_baseline",
        &[
            since(22, privileges::capabilities),
            since(25, privileges::capabilities_but_windows),
        ],
    ),
    restricted(
        "procMount_restricted",
        "procMount",
        &[since(35, volumes::proc_mount)],
    ),
    restricted(
        "restrictedVolumes",
        "hostPathVolumes",
        &[since(0, volumes::types)],
    ),
    restricted(
        "runAsNonRoot",
        "",
        &[
            since(0, users::non_root),
            since(35, users::non_root_of_host_users),
        ],
    ),
    restricted(
        "runAsUser",
        "",
        &[
            since(23, users::not_user_0),
            since(35, users::not_user_0_of_host_users),
        ],
    ),
    restricted(
        "seccompProfile_restricted",
        "seccompProfile_baseline",
        &[
            since(19, profiles::seccomp_required),
            since(25, profiles::seccomp_required_but_windows),
        ],
    ),
];

impl Check {
    /// The rule as it was in a version; `None` before there was one.
    fn at(&self, version: Version) -> Option<&Revision> {
        let minor = match version {
            Version::Latest => u32::MAX,
            Version::Minor(minor) => minor,
        };
        self.revisions.iter().rev().find(|r| r.since <= minor)
    }
}

/// What is wrong with a pod under a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Forbidden>);

impl Violations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `host namespaces, privileged`
    pub fn reasons(&self) -> String {
        let reasons: Vec<&str> = self.0.iter().map(|f| f.reason.as_str()).collect();
        reasons.join(", ")
    }

    /// `host namespaces (hostNetwork=true), privileged (container "a" must not …)`
    pub fn details(&self) -> String {
        let details: Vec<String> = self
            .0
            .iter()
            .map(|f| match f.detail.as_str() {
                "" => f.reason.clone(),
                detail => format!("{} ({detail})", f.reason),
            })
            .collect();
        details.join(", ")
    }
}

/// Holds a pod (or a template) against a policy.
pub fn evaluate(policy: LevelVersion, metadata: &Value, spec: &Value) -> Violations {
    let pod = Pod { metadata, spec };
    let applies = |check: &&Check| check.level <= policy.level;
    let checks: Vec<(&Check, &Revision)> = CHECKS
        .iter()
        .filter(applies)
        .filter_map(|check| Some((check, check.at(policy.version)?)))
        .collect();
    let replaced = |id: &str| checks.iter().any(|(check, _)| check.instead_of == id);
    let mut violations = Violations::default();
    if policy.level != Level::Privileged {
        let own = checks.iter().filter(|(check, _)| !replaced(check.id));
        let found = own.filter_map(|(_, revision)| (revision.check)(&pod));
        violations.0.extend(found);
    }
    violations
}

#[cfg(test)]
mod tests;
