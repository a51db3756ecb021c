//! kube-scheduler: finds a node for every pod that has none. The binary is [`run`]; the
//! benchmark of decisions has [`in_process`].

mod bind;
mod binding;
mod cache;
mod claims;
mod config;
mod courier;
mod cycle;
mod evaluation;
mod extended;
mod extended_preemption;
mod extender;
mod follow;
mod framework;
mod group_cycle;
mod group_extended;
mod groups;
pub mod in_process;
mod metrics;
mod model;
mod options;
mod plugins;
mod prebind;
mod profile;
mod queue;
mod reserve;
mod resource_metrics;
mod scheduler;
mod server;
mod unschedulable;

use std::process::ExitCode;

/// What the binary does.
pub fn run() -> ExitCode {
    component::run(
        component::Daemon {
            name: "kube-scheduler",
            // Decisions take turns with the requests that they lead to; handing each over to
            // another thread costs more than most of them take.
            workers: component::Workers::Few(1),
        },
        server::serve,
    )
}
