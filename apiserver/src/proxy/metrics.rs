//! What is counted of requests that end at kubelets, under upstream's names.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

pub struct Metrics {
    translator: IntCounterVec,
    tunnel: IntCounterVec,
    streaming: IntCounterVec,
    logs: IntCounterVec,
    /// Logs were not had because the kubelet could not show who it is.
    pub log_tls_failures: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let log_tls_failures = IntCounter::new(
            "kube_apiserver_pod_logs_backend_tls_failure_total",
            "Requests for logs that failed because the kubelet could not show who it is.",
        )?;
        registry.register(Box::new(log_tls_failures.clone()))?;
        Ok(Metrics {
            log_tls_failures,
            translator: counter(
                "apiserver_stream_translator_requests_total",
                "Remote commands over WebSockets that were translated to SPDY, by how they ended.",
                &["code"],
            )?,
            tunnel: counter(
                "apiserver_stream_tunnel_requests_total",
                "Forwarded ports that were tunnelled through WebSockets, by the kubelet's answer.",
                &["code"],
            )?,
            streaming: counter(
                "apiserver_websocket_streaming_requests_total",
                "Requests for exec, attach and portforward, by who serves what comes over a WebSocket.",
                &["subresource", "proxy_type"],
            )?,
            logs: counter(
                "kube_apiserver_pod_logs_insecure_backend_total",
                "Requests for logs, by whether the kubelet had to show who it is.",
                &["usage"],
            )?,
        })
    }

    pub fn translated(&self, code: u16) {
        let code = code.to_string();
        self.translator.with_label_values(&[code.as_str()]).inc();
    }

    pub fn tunnelled(&self, code: u16) {
        let code = code.to_string();
        self.tunnel.with_label_values(&[code.as_str()]).inc();
    }

    pub fn routed(&self, subresource: &str, to_kubelet: bool) {
        let by = match to_kubelet {
            true => "proxied_to_kubelet",
            false => "translated_at_apiserver",
        };
        self.streaming.with_label_values(&[subresource, by]).inc();
    }

    /// Logs were asked for, perhaps of a kubelet that need not show who it is.
    pub fn log(&self, insecure: bool) {
        let usage = match insecure {
            true => "skip_tls_allowed",
            false => "enforce_tls",
        };
        self.logs.with_label_values(&[usage]).inc();
    }
}
