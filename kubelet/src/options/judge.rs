//! What upstream finds out only while it starts, and is told here before anything is started.

use std::collections::BTreeMap;
use std::io;

use meta::gofmt::Quoted;

use crate::config::{KubeletConfiguration, validation};

/// # Errors
/// With the first that is wrong.
pub fn judge(c: &KubeletConfiguration) -> Result<(), String> {
    if !matches!(c.cgroup_driver.as_str(), "cgroupfs" | "systemd") {
        return Err(format!(
            "cgroupDriver is cgroupfs or systemd, not {:?}",
            c.cgroup_driver
        ));
    }
    let mode = c.authorization.mode.as_str();
    if !matches!(mode, "AlwaysAllow" | "Webhook") {
        return Err(format!("unknown authorization mode {mode}"));
    }
    let strategy = c.config_map_and_secret_change_detection_strategy.as_str();
    if !matches!(strategy, "Watch" | "Cache" | "Get") {
        return Err(format!(
            "unknown configmap and secret manager mode: {strategy}"
        ));
    }
    let ca = &c.authentication.x509.client_ca_file;
    if !ca.is_empty()
        && let Err(error) = std::fs::File::open(ca)
    {
        return Err(format!("open {ca}: {}", go_words(&error)));
    }
    for (flag, reserved) in [
        ("kube-reserved", &c.kube_reserved),
        ("system-reserved", &c.system_reserved),
    ] {
        let judged = validation::resource_list(reserved);
        judged.map_err(|why| format!("--{flag} value failed to parse: {why}"))?;
    }
    qos_reserved(&c.qos_reserved)
        .map_err(|why| format!("--qos-reserved value failed to parse: {why}"))?;
    let policies = [
        (&c.cpu_manager_policy, ["none", "static"]),
        (&c.memory_manager_policy, ["None", "Static"]),
    ];
    for (policy, known) in policies {
        if !known.contains(&policy.as_str()) {
            return Err(format!("unknown policy: {}", Quoted(policy)));
        }
    }
    let size = c.container_log_max_size.parse::<meta::Quantity>();
    let size = size.map_err(|error| {
        let size = Quoted(&c.container_log_max_size);
        format!("failed to parse container log max size {size}: {error}")
    })?;
    if size.value() < 0 {
        return Err(format!(
            "invalid negative container log max size {}",
            size.value()
        ));
    }
    if c.tls_cert_file.is_empty() != c.tls_private_key_file.is_empty() {
        return Err("tlsCertFile and tlsPrivateKeyFile go together".into());
    }
    for (field, address) in [
        ("address", &c.address),
        ("healthzBindAddress", &c.healthz_bind_address),
    ] {
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("{field} {address:?} is no IP address to serve on"));
        }
    }
    Ok(())
}

/// Percentages of memory.
fn qos_reserved(reserved: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, text) in reserved {
        if name != "memory" {
            return Err(format!("cannot reserve {} resource", Quoted(name)));
        }
        let number = text.strip_suffix('%').map(str::parse::<i64>);
        let why = match number {
            None => format!("percentage expected, got '{text}'"),
            Some(Err(_)) => format!("invalid number in percentage '{text}'"),
            Some(Ok(0..=100)) => continue,
            Some(Ok(_)) => "percentage must be between 0 and 100".to_owned(),
        };
        let (text, name) = (Quoted(text), Quoted(name));
        return Err(format!(
            "failed to parse percentage {text} for {name} resource: {why}"
        ));
    }
    Ok(())
}

/// As Go names an error of the system.
fn go_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_upstream_finds_out_later() {
        for (config, message) in [
            (json!({}), ""),
            (json!({"qosReserved": {"memory": "50%"}}), ""),
            (
                json!({"qosReserved": {"cpu": "50%"}}),
                "--qos-reserved value failed to parse: cannot reserve \"cpu\" resource",
            ),
            (
                json!({"qosReserved": {"memory": "101%"}}),
                "--qos-reserved value failed to parse: failed to parse percentage \"101%\" for \"memory\" resource: \
                 percentage must be between 0 and 100",
            ),
            (
                json!({"cpuManagerPolicy": "foo"}),
                "unknown policy: \"foo\"",
            ),
            (
                json!({"memoryManagerPolicy": "foo"}),
                "unknown policy: \"foo\"",
            ),
            (
                json!({"authentication": {"x509": {"clientCAFile": "/no/such"}}}),
                "open /no/such: no such file or directory",
            ),
            (
                json!({"containerLogMaxSize": "-1"}),
                "invalid negative container log max size -1",
            ),
        ] {
            let judged = |config: Value| {
                let config = serde_json::from_value::<KubeletConfiguration>(config).unwrap();
                judge(&config.complete()).err().unwrap_or_default()
            };
            assert_eq!(judged(config), message);
        }
    }
}
