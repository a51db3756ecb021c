//! How long pods have when the node goes down.

use component::flags::GoDuration;

use super::{Context, Errors};

pub fn judge(context: &Context<'_>, errors: &mut Errors) {
    let (c, gates) = (context.config, &context.gates);
    let (all, critical) = (
        c.shutdown_grace_period,
        c.shutdown_grace_period_critical_pods,
    );
    let none = GoDuration::default();
    let given = all > none || critical > none;
    if gates.enabled("GracefulNodeShutdown") {
        errors.wrong_if(
            critical > all,
            format!(
                "shutdownGracePeriodCriticalPods {{{critical}}} must be <= shutdownGracePeriod {{{all}}}"
            ),
        );
        for (name, period) in [
            ("shutdownGracePeriod", all),
            ("shutdownGracePeriodCriticalPods", critical),
        ] {
            let fits = period.is_zero() || period >= GoDuration::from_secs(1);
            errors.wrong_if(
                !fits,
                format!("{name} {{{period}}} must be either zero or otherwise >= 1 sec"),
            );
        }
    } else {
        errors.wrong_if(
            given,
            "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods requires feature gate \
             GracefulNodeShutdown",
        );
    }
    if c.shutdown_grace_period_by_pod_priority.is_empty() {
        return;
    }
    if gates.enabled("GracefulNodeShutdownBasedOnPodPriority") {
        errors.wrong_if(
            given,
            "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time",
        );
    } else {
        errors.wrong(
            "Specifying shutdownGracePeriodByPodPriority requires feature gate GracefulNodeShutdownBasedOnPodPriority",
        );
    }
}
