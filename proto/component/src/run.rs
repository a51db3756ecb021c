//! The life of a daemon: flags, logs, a runtime, signals, an exit code.

use std::future::Future;
use std::process::ExitCode;

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
    /// Worker threads of the runtime. Few are enough where work is small and waits on
    /// the network; the API server takes one per core (0).
    pub worker_threads: usize,
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
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if daemon.worker_threads > 0 {
        builder.worker_threads(daemon.worker_threads);
    }
    builder.enable_all().thread_name(daemon.name);
    let runtime = match builder.thread_stack_size(STACK).build() {
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
