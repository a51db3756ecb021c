//! Which Kubernetes this is.

use serde::Serialize;

/// The version that Ferrokube is a drop-in for.
pub const GIT_VERSION: &str = "v1.36.2";
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";

/// The binary's version, as candidates for leases give it: `1.36.2`.
pub fn binary() -> String {
    GIT_VERSION.trim_start_matches('v').to_owned()
}

/// The version that is emulated, which is the binary's: `1.36.0`.
pub fn emulation() -> String {
    format!("{MAJOR}.{MINOR}.0")
}

/// `version.Info`, the answer to `/version`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    pub major: &'static str,
    pub minor: &'static str,
    pub emulation_major: &'static str,
    pub emulation_minor: &'static str,
    pub min_compatibility_major: &'static str,
    pub min_compatibility_minor: &'static str,
    pub git_version: &'static str,
    pub git_commit: &'static str,
    pub git_tree_state: &'static str,
    pub build_date: &'static str,
    pub go_version: &'static str,
    pub compiler: &'static str,
    pub platform: &'static str,
}

/// Fields that describe a Go build say what stands in their place.
pub const INFO: Info = Info {
    major: MAJOR,
    minor: MINOR,
    emulation_major: MAJOR,
    emulation_minor: MINOR,
    min_compatibility_major: MAJOR,
    min_compatibility_minor: "35",
    git_version: GIT_VERSION,
    git_commit: "ferrokube",
    git_tree_state: "clean",
    build_date: "1970-01-01T00:00:00Z",
    go_version: "rust",
    compiler: "rustc",
    platform: PLATFORM,
};

#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "linux/amd64";
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "linux/arm64";

/// `<binary>/v1.36.2 (linux/amd64) ferrokube`, for requests.
pub fn user_agent(binary: &str) -> String {
    format!("{binary}/{GIT_VERSION} ({PLATFORM}) ferrokube")
}
