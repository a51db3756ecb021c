//! The life of a daemon: flags, logs, a runtime, signals, an exit code.

use std::future::Future;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use crate::{flags, logs, panics, signals};

/// The stack of every thread of a daemon: objects nest 10 000 deep (`codec::MAX_DEPTH`), and
/// whatever walks through them, down to their drop, does so by recursion. It is address space,
/// not memory: what nobody reaches is never touched. Frames of debug builds are larger.
pub const STACK: usize = if cfg!(debug_assertions) {
    512 << 20
} else {
    64 << 20
};

/// What `main` hands to [`run`].
#[derive(Debug, Clone, Copy)]
pub struct Daemon {
    /// The binary's name, as upstream's.
    pub name: &'static str,
    /// What runs its tasks.
    pub workers: Workers,
}

/// How many threads run a daemon's tasks. `GOMAXPROCS`, by which upstream's daemons are told,
/// tells ours, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// So many: few are enough where work is small and waits on the network.
    Few(usize),
    /// One for two cores, for a daemon that may have much to do. Each thread more has to be woken
    /// and to look for work (with two of them, ten watches cost a fifth more CPU time than with
    /// one), and etcd and the other daemons want the rest of the machine.
    OneForTwoCores,
}

impl Workers {
    fn count(self, told: Option<&str>, cores: usize) -> usize {
        let told = told.and_then(|told| told.parse().ok());
        told.filter(|count| *count > 0).unwrap_or(match self {
            Self::Few(count) => count,
            Self::OneForTwoCores => cores.div_ceil(2),
        })
    }
}

/// Parses `O` from the command line, starts logging and the runtime, and runs `serve`
/// until it returns. SIGTERM and SIGINT cancel the token; a second one ends the process.
///
/// An error of `serve` is logged with its causes and makes the exit code 1, as a
/// supervisor expects. Wrong flags print upstream's `Error: unknown flag: …` and exit 1.
pub fn run<O, F, Fut>(daemon: Daemon, serve: F) -> ExitCode
where
    O: clap::Args + AsRef<logs::Options>,
    F: FnOnce(O, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let options = match flags::parse::<O>(daemon.name, std::env::args_os()) {
        Ok(options) => options,
        Err(exit) => return exit.print(),
    };
    logs::init(options.as_ref());
    panics::end_the_process();
    if let Err(error) = allow_descriptors() {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    let told = std::env::var("GOMAXPROCS").ok();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(daemon.workers.count(told.as_deref(), cores))
        .thread_name(daemon.name)
        .thread_stack_size(STACK)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let stop = signals::stop_token()?;
        // As a task: the first thread's stack is what the system gives it.
        tokio::spawn(serve(options, stop)).await?
    });
    // Tasks that still run are not waited for: everything that must be finished is
    // finished by `serve`.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{} failed: {error:#}", daemon.name);
            ExitCode::FAILURE
        }
    }
}

/// Lets the process open as many files as it may, as Go's runtime does: the soft limit (1024, by
/// default) is for programs that call `select(2)`.
fn allow_descriptors() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers() {
        let half = |told, cores| Workers::OneForTwoCores.count(told, cores);
        assert_eq!([1, 2, 3, 8].map(|cores| half(None, cores)), [1, 1, 2, 4]);
        assert_eq!(half(Some("6"), 8), 6);
        // What Go does not take either.
        for told in ["", "0", "-1", "many"] {
            assert_eq!(half(Some(told), 8), 4, "{told:?}");
        }
        assert_eq!(Workers::Few(1).count(None, 8), 1);
        assert_eq!(Workers::Few(1).count(Some("3"), 8), 3);
    }
}
