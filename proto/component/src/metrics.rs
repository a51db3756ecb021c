//! Metrics: one registry per daemon, passed in, rendered at `/metrics`.

use prometheus::core::Collector;
use prometheus::{Encoder, IntGaugeVec, Opts, TextEncoder};

use crate::version;

/// A daemon's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry(prometheus::Registry);

impl Registry {
    /// With what every daemon has: its process and `kubernetes_build_info`.
    pub fn new() -> Self {
        let registry = Self(prometheus::Registry::new());
        registry.register(prometheus::process_collector::ProcessCollector::for_self());
        let info = &version::INFO;
        let opts = Opts::new(
            "kubernetes_build_info",
            "Which build this is; the value is 1.",
        );
        let labels = ["major", "minor", "git_version", "git_commit", "platform"];
        if let Ok(build) = IntGaugeVec::new(opts, &labels) {
            build
                .with_label_values(&[
                    info.major,
                    info.minor,
                    info.git_version,
                    info.git_commit,
                    info.platform,
                ])
                .set(1);
            registry.register(build);
        }
        registry
    }

    /// Adds a metric. Two of one name are a mistake in the code: the second is logged
    /// and left out.
    pub fn register(&self, collector: impl Collector + 'static) {
        if let Err(error) = self.0.register(Box::new(collector)) {
            tracing::error!("a metric is not registered: {error}");
        }
    }

    /// The registry for code that takes prometheus' own.
    pub fn inner(&self) -> &prometheus::Registry {
        &self.0
    }

    /// The body of `/metrics` in Prometheus' text format, and its content type.
    pub fn render(&self) -> (String, &'static str) {
        let mut body = Vec::new();
        let encoder = TextEncoder::new();
        if let Err(error) = encoder.encode(&self.0.gather(), &mut body) {
            tracing::error!("metrics cannot be rendered: {error}");
        }
        (
            String::from_utf8_lossy(&body).into_owned(),
            prometheus::TEXT_FORMAT,
        )
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_daemon_has_is_rendered() {
        let (text, _) = Registry::new().render();
        assert!(text.contains("kubernetes_build_info{"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
