//! The two forms of a log line.

use std::fmt;

use jiff::Zoned;
use jiff::fmt::strtime;
use meta::gofmt::Quoted;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `I1121 12:34:56.789012    4711 file.rs:10] "message" key="value"`
pub(super) struct Klog {
    pid: u32,
}

impl Klog {
    pub fn new() -> Self {
        Self {
            pid: std::process::id(),
        }
    }
}

/// The fields of an event, as strings and JSON.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    /// Numbers and booleans, shown as they are.
    Plain(String),
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::Text(value.to_owned()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Plain(value.to_string()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Plain(value.to_string()));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::Plain(value.to_string()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Plain(value.to_string()));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::Text(format!("{value:?}")));
    }
}

impl Fields {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            // Errors go under the key that upstream has for them.
            ("error", value) => self.others.push(("err", value)),
            (name, value) => self.others.push((name, value)),
        }
    }
}

fn file(event: &Event<'_>) -> &'static str {
    let path = event.metadata().file().unwrap_or("unknown");
    path.rsplit('/').next().unwrap_or(path)
}

fn line(event: &Event<'_>) -> u32 {
    event.metadata().line().unwrap_or(0)
}

impl<S, N> FormatEvent<S, N> for Klog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let letter = match *event.metadata().level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            _ => 'I',
        };
        let now = Zoned::now();
        let time = strtime::format("%m%d %H:%M:%S.%6f", &now).map_err(|_| fmt::Error)?;
        write!(
            out,
            "{letter}{time} {:7} {}:{}] {}",
            self.pid,
            file(event),
            line(event),
            Quoted(&Fields::of(event).message)
        )?;
        for (key, value) in Fields::of(event).others {
            match value {
                Value::Text(text) => write!(out, " {key}={}", Quoted(&text))?,
                Value::Plain(text) => write!(out, " {key}={text}")?,
            }
        }
        out.write_char('\n')
    }
}

/// `{"ts":…,"caller":"file.rs:10","msg":"message","v":0,"key":"value"}`
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let fields = Fields::of(event);
        let json = |s: &str| serde_json::Value::from(s).to_string();
        let now = jiff::Timestamp::now();
        let millis = now.as_microsecond() as f64 / 1000.0;
        write!(
            out,
            "{{\"ts\":{millis:.4},\"caller\":{},\"msg\":{}",
            json(&format!("{}:{}", file(event), line(event))),
            json(&fields.message)
        )?;
        // Upstream's errors have no verbosity.
        match *event.metadata().level() {
            Level::ERROR => {}
            Level::WARN | Level::INFO => out.write_str(",\"v\":0")?,
            Level::DEBUG => out.write_str(",\"v\":4")?,
            Level::TRACE => out.write_str(",\"v\":6")?,
        }
        for (key, value) in fields.others {
            match value {
                Value::Text(text) => write!(out, ",{}:{}", json(key), json(&text))?,
                Value::Plain(text) => write!(out, ",{}:{text}", json(key))?,
            }
        }
        out.write_str("}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log<F>(format: F) -> String
    where
        F: FormatEvent<
                tracing_subscriber::Registry,
                tracing_subscriber::fmt::format::DefaultFields,
            > + Send
            + Sync
            + 'static,
    {
        use tracing_subscriber::layer::SubscriberExt as _;
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(format)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pod = "a/b", count = 3, "said \"hi\"");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn klog_lines() {
        let line = log(Klog { pid: 42 });
        assert!(line.starts_with('W'), "{line}");
        assert!(line.contains("      42 format.rs:"), "{line}");
        assert!(
            line.ends_with("] \"said \\\"hi\\\"\" pod=\"a/b\" count=3\n"),
            "{line}"
        );
        assert_eq!(line.find(' '), Some(5), "{line}");
    }

    #[test]
    fn json_lines() {
        let line = log(Json);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], "said \"hi\"");
        assert_eq!(value["v"], 0);
        assert_eq!(value["count"], 3);
        assert!(value["caller"].as_str().unwrap().starts_with("format.rs:"));
    }
}
