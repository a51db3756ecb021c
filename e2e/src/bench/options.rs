//! The command line of `e2e/bench`.

use std::path::PathBuf;

use clap::Parser;

/// Compares two directories of binaries.
#[derive(Debug, Clone, Parser)]
#[command(name = "e2e/bench")]
pub struct Options {
    /// Directory with our kube-apiserver.
    pub ours: PathBuf,
    /// Directory with theirs; without it only ours is measured.
    pub theirs: Option<PathBuf>,
    /// Which rows: 1-7, 11-14, heap, stalled. All but the last two by default.
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    /// How often each side is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    pub pairs: usize,
    /// Pods in the store.
    #[arg(long, default_value_t = 50_000)]
    pub pods: u64,
    /// Objects that one sample of a writing row writes.
    #[arg(long, default_value_t = 1000)]
    pub writes: u64,
    /// Numbers of watchers of row 5.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    pub watchers: Vec<usize>,
    /// Events per second of row 5, as long as the watchers follow.
    #[arg(long, default_value_t = 500)]
    pub rate: u64,
    /// How long row 14 watches idle servers.
    #[arg(long, default_value_t = 60)]
    pub idle_seconds: u64,
    /// Further flags of both API servers, such as raised limits; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    pub flag: Vec<String>,
    /// Let etcd sync its log to the disk. By default it does not: the disk is not what
    /// is compared.
    #[arg(long)]
    pub fsync: bool,
    /// Where data, logs and certificates are kept; a temporary directory by default.
    #[arg(long)]
    pub work: Option<PathBuf>,
    /// Results for programs, as JSON.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

impl Options {
    /// Whether a row is to be measured.
    pub fn wants(&self, row: &str) -> bool {
        if self.rows.is_empty() {
            return row.parse::<u32>().is_ok();
        }
        self.rows.iter().any(|wanted| wanted == row)
    }
}
