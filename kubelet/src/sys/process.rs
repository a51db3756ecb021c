//! Processes, and this one's own standing.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

/// Kills a process. One that is gone already is fine.
pub fn kill(pid: i32) {
    // The only other failure, EPERM, leaves the process: the caller sees it when it looks again.
    let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Raises the number of files this process may open.
///
/// # Errors
/// When the hard limit is lower and this process may not raise it.
pub fn set_max_open_files(files: u64) -> Result<(), Errno> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files))
}

/// Makes the kernel spare this process (negative) or kill it sooner when memory runs out.
///
/// # Errors
/// When this process may not lower its score.
pub fn set_oom_score_adj(score: i32) -> std::io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
}
