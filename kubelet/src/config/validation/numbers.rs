//! Numbers and durations within their ranges, and flags that may not be on.

use component::flags::GoDuration;

use super::{Context, Errors};

pub fn judge(context: &Context<'_>, errors: &mut Errors) {
    let (c, gates) = (context.config, &context.gates);
    errors.wrong_if(
        c.node_lease_duration_seconds <= 0,
        "nodeLeaseDurationSeconds must be greater than 0",
    );
    errors.wrong_if(
        !c.system_cgroups.is_empty() && c.cgroup_root.is_empty(),
        "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified",
    );
    not_negative(errors, "eventBurst (--event-burst)", c.event_burst);
    not_negative(errors, "eventRecordQPS (--event-qps)", c.event_record_qps);
    if c.healthz_port != 0 {
        port(errors, "healthzPort (--healthz-port)", c.healthz_port, 1);
    }
    cfs_period(context, errors);
    image_gc(context, errors);
    for (name, bit) in [
        ("iptablesDropBit (--iptables-drop-bit)", c.iptables_drop_bit),
        (
            "iptablesMasqueradeBit (--iptables-masquerade-bit)",
            c.iptables_masquerade_bit,
        ),
    ] {
        within(errors, name, bit, 0, 31);
    }
    not_negative(errors, "kubeAPIBurst (--kube-api-burst)", c.kube_api_burst);
    not_negative(errors, "kubeAPIQPS (--kube-api-qps)", c.kube_api_qps);
    errors.wrong_if(
        c.node_status_max_images < -1,
        format!(
            "nodeStatusMaxImages (--node-status-max-images) {} must be -1 or greater",
            c.node_status_max_images
        ),
    );
    not_negative(errors, "maxOpenFiles (--max-open-files)", c.max_open_files);
    not_negative(errors, "maxPods (--max-pods)", c.max_pods);
    let score = "oomScoreAdj (--oom-score-adj)";
    within(errors, score, c.oom_score_adj, -1000, 1000);
    not_negative(errors, "podsPerCore (--pods-per-core)", c.pods_per_core);
    port(errors, "port (--port)", c.port, 1);
    if c.read_only_port != 0 {
        let name = "readOnlyPort (--read-only-port)";
        port(errors, name, c.read_only_port, 0);
    }
    not_negative(errors, "registryBurst (--registry-burst)", c.registry_burst);
    not_negative(
        errors,
        "registryPullQPS (--registry-qps)",
        c.registry_pull_qps,
    );
    let pulls = c.max_parallel_image_pulls;
    if let Some(pulls) = pulls.filter(|pulls| *pulls < 1) {
        errors.wrong(format!(
            "maxParallelImagePulls {pulls} must be a positive number"
        ));
    }
    errors.wrong_if(
        c.serialize_image_pulls == Some(true) && pulls.is_some_and(|pulls| pulls > 1),
        "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to \
         false",
    );
    errors.wrong_if(
        c.server_tls_bootstrap && !gates.enabled("RotateKubeletServerCertificate"),
        "serverTLSBootstrap true requires feature gate RotateKubeletServerCertificate",
    );
    errors.wrong_if(
        c.run_once,
        "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set",
    );
}

fn cfs_period(context: &Context<'_>, errors: &mut Errors) {
    let period = context.config.cpu_cfs_quota_period;
    let name = "cpuCFSQuotaPeriod (--cpu-cfs-quota-period)";
    if context.gates.enabled("CustomCPUCFSQuotaPeriod") {
        let allowed = GoDuration::from_millis(1)..=GoDuration::from_secs(1);
        errors.wrong_if(
            !allowed.contains(&period),
            format!("{name} {{{period}}} must be between 1ms and 1sec, inclusive"),
        );
    } else {
        errors.wrong_if(
            period != GoDuration::from_millis(100),
            format!("{name} {{{period}}} requires feature gate CustomCPUCFSQuotaPeriod"),
        );
    }
}

fn image_gc(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    let (high, low) = (
        c.image_gc_high_threshold_percent,
        c.image_gc_low_threshold_percent,
    );
    let high_name = "imageGCHighThresholdPercent (--image-gc-high-threshold)";
    let low_name = "imageGCLowThresholdPercent (--image-gc-low-threshold)";
    within(errors, high_name, high, 0, 100);
    within(errors, low_name, low, 0, 100);
    errors.wrong_if(
        low >= high,
        format!("{low_name} {low} must be less than {high_name} {high}"),
    );
    let (min, max) = (c.image_minimum_gc_age, c.image_maximum_gc_age);
    for (name, age) in [("imageMinimumGCAge", min), ("imageMaximumGCAge", max)] {
        errors.wrong_if(
            age.is_negative(),
            format!("{name} {age} must not be negative"),
        );
    }
    errors.wrong_if(
        max > GoDuration::default() && max <= min,
        format!("imageMaximumGCAge {max} must be greater than imageMinimumGCAge {min}"),
    );
}

fn not_negative(errors: &mut Errors, name: &str, number: impl Into<i64>) {
    let number = number.into();
    errors.wrong_if(
        number < 0,
        format!("{name} {number} must not be a negative number"),
    );
}

fn within(errors: &mut Errors, name: &str, number: i32, low: i32, high: i32) {
    errors.wrong_if(
        !(low..=high).contains(&number),
        format!("{name} {number} must be between {low} and {high}, inclusive"),
    );
}

fn port(errors: &mut Errors, name: &str, port: i32, lowest: i32) {
    errors.wrong_if(
        !(1..=65535).contains(&port),
        format!("{name} {port} must be between {lowest} and 65535, inclusive"),
    );
}
