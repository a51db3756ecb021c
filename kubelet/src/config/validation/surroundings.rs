//! What the machine, the runtime and those who look on have to do with.

use std::path::Path;

use component::flags::GoDuration;
use meta::gofmt::Quoted;

use super::{Context, Errors};
use crate::config::file::clean;

/// User ids that a pod in a user namespace has: 16 bits of them.
const USER_NAMESPACE: i64 = 65536;
const MILLION: i32 = 1_000_000;

pub fn judge_containers(context: &Context<'_>, errors: &mut Errors) {
    let (c, gates) = (context.config, &context.gates);
    let swap = c.memory_swap.swap_behavior.as_str();
    if gates.enabled("NodeSwap") {
        errors.wrong_if(
            !matches!(swap, "" | "NoSwap" | "LimitedSwap"),
            format!(
                "memorySwap.swapBehavior {} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\"",
                Quoted(swap)
            ),
        );
    } else {
        errors.wrong_if(
            !swap.is_empty(),
            "memorySwap.swapBehavior cannot be set when NodeSwap feature flag is disabled",
        );
    }
    let period = c.crash_loop_back_off.max_container_restart_period;
    let allowed = GoDuration::from_secs(1)..=GoDuration::from_secs(300);
    match (gates.enabled("KubeletCrashLoopBackOffMax"), period) {
        (true, None) => errors.wrong(
            "FeatureGate KubeletCrashLoopBackOffMax is enabled, CrashLoopBackOff.MaxContainerRestartPeriod must be set",
        ),
        (true, Some(period)) => errors.wrong_if(
            !allowed.contains(&period),
            format!(
                "CrashLoopBackOff.MaxContainerRestartPeriod (got: {} seconds) must be set between 1s and 300s",
                period.get().as_secs_f64()
            ),
        ),
        (false, Some(_)) => errors.wrong(
            "FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not be \
             set",
        ),
        (false, None) => {}
    }
}

/// Of these upstream tells the first only.
pub fn judge_host(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    if !context.cgroup_v2 && c.fail_cgroup_v1 {
        errors.push(
            "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be \
             removed in a future release",
        );
        return;
    }
    if !context.cgroup_v2 && c.single_process_oom_kill == Some(false) {
        errors
            .wrong("singleProcessOOMKill must not be explicitly set to false when using cgroup v1");
        return;
    }
    let ids = c.user_namespaces.as_ref().and_then(|u| u.ids_per_pod);
    let Some(ids) = ids else { return };
    if ids < USER_NAMESPACE {
        errors.wrong(format!(
            "userNamespaces.idsPerPod must not be less than {USER_NAMESPACE}"
        ));
    } else if ids % USER_NAMESPACE != 0 {
        errors.wrong(format!(
            "userNamespaces.idsPerPod must be a multiple of {USER_NAMESPACE}"
        ));
    } else if ids > u32::MAX.into() {
        errors.wrong(format!(
            "userNamespaces.idsPerPod must not be more than {}",
            u32::MAX
        ));
    }
}

pub fn judge_metrics(context: &Context<'_>, errors: &mut Errors) {
    let wanted = &context.config.show_hidden_metrics_for_version;
    let minor: u32 = component::version::MINOR.parse().unwrap_or_default();
    let previous = format!("{}.{}", component::version::MAJOR, minor.saturating_sub(1));
    if !wanted.is_empty() && *wanted != previous {
        errors.push(format!(
            "invalid showHiddenMetricsForVersion: showHiddenMetricsForVersion: Invalid value: {}: must be omitted or \
             have the value '{previous}'; only the previous minor version is allowed",
            Quoted(wanted)
        ));
    }
}

pub fn judge_tracing(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    let Some(tracing) = &c.tracing else { return };
    let mut invalid = |field: &str, value: &dyn std::fmt::Display, why: String| {
        errors.push(format!("tracing.{field}: Invalid value: {value}: {why}"));
    };
    if let Some(rate) = tracing.sampling_rate_per_million {
        let field = "samplingRatePerMillion";
        if rate < 0 {
            invalid(field, &rate, "sampling rate must be positive".into());
        }
        if rate > MILLION {
            let why = "sampling rate per million must be less than or equal to one million";
            invalid(field, &rate, why.into());
        }
    }
    if let Some(endpoint) = &tracing.endpoint
        && endpoint.contains("//")
    {
        let scheme = endpoint.split(':').next().unwrap_or_default();
        if !matches!(scheme, "dns" | "unix" | "unix-abstract") {
            let why = format!(
                "unsupported scheme: {scheme}.  Options are none, dns, unix, or unix-abstract.  See \
                 https://github.com/grpc/grpc/blob/master/doc/naming.md"
            );
            invalid("endpoint", &Quoted(endpoint), why);
        }
    }
}

pub fn judge_memory_qos(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    let factor = c.memory_throttling_factor;
    errors.wrong_if(
        factor <= 0.0 || factor > 1.0,
        format!(
            "memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0"
        ),
    );
    let policy = c.memory_reservation_policy.as_str();
    errors.wrong_if(
        policy == "TieredReservation" && !context.gates.enabled("MemoryQoS"),
        "memoryReservationPolicy \"TieredReservation\" requires MemoryQoS feature gate to be enabled",
    );
    errors.wrong_if(
        !matches!(policy, "None" | "TieredReservation"),
        format!(
            "option {} specified for memoryReservationPolicy. Valid options are \"None\" or \"TieredReservation\"",
            Quoted(policy)
        ),
    );
}

pub fn judge_logs(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    errors.wrong_if(
        c.container_runtime_endpoint.is_empty(),
        "the containerRuntimeEndpoint was not specified or empty",
    );
    errors.wrong_if(
        c.enable_system_log_query && !context.gates.enabled("NodeLogQuery"),
        "NodeLogQuery feature gate is required for enableSystemLogQuery",
    );
    errors.wrong_if(
        c.enable_system_log_query && !c.enable_system_log_handler,
        "enableSystemLogHandler is required for enableSystemLogQuery",
    );
    errors.wrong_if(
        c.container_log_max_workers < 1,
        "containerLogMaxWorkers must be greater than or equal to 1",
    );
    errors.wrong_if(
        c.container_log_monitor_interval < GoDuration::from_secs(3),
        "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s",
    );
    errors.wrong_if(
        c.container_log_max_files <= 1,
        "containerLogMaxFiles must be greater than 1",
    );
    let path = &c.pod_logs_dir;
    errors.wrong_if(path.is_empty(), "podLogsDir was not specified");
    let shown = Quoted(path);
    errors.wrong_if(
        !Path::new(path).is_absolute(),
        format!("pod logs path {shown} must be absolute path"),
    );
    errors.wrong_if(
        *path != clean(Path::new(path)),
        format!("pod logs path {shown} must be normalized"),
    );
    errors.wrong_if(
        !path.is_ascii(),
        format!("pod logs path {shown} mut contains ASCII characters only"),
    );
}
