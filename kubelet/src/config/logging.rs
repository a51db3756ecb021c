//! `logging` of the configuration: component-base's `LoggingConfiguration`.

use component::flags::GoDuration;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{is_zero, seconds};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logging {
    /// `text` or `json`.
    pub format: String,
    /// Lines are written at once, so nothing is left to flush.
    #[serde(deserialize_with = "nanoseconds_or_text")]
    pub flush_frequency: GoDuration,
    pub verbosity: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vmodule: Vec<ModuleVerbosity>,
    pub options: FormatOptions,
}

/// Verbosity of the files that match a pattern.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModuleVerbosity {
    pub file_pattern: String,
    pub verbosity: u32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FormatOptions {
    pub text: OutputRouting,
    pub json: OutputRouting,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputRouting {
    #[serde(skip_serializing_if = "is_zero")]
    pub split_stream: bool,
    /// A quantity; a number is one too.
    #[serde(deserialize_with = "number_or_text")]
    pub info_buffer_size: String,
}

impl Default for OutputRouting {
    fn default() -> Self {
        Self {
            split_stream: false,
            info_buffer_size: "0".into(),
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            format: "text".into(),
            flush_frequency: seconds(5),
            verbosity: 0,
            vmodule: Vec::new(),
            options: FormatOptions::default(),
        }
    }
}

impl Logging {
    pub fn complete(&mut self) {
        let default = Self::default();
        if self.format.is_empty() {
            self.format = default.format;
        }
        if self.flush_frequency.is_zero() {
            self.flush_frequency = default.flush_frequency;
        }
    }

    /// `a=1,b=2`, as `--vmodule` has it.
    pub fn vmodule_text(&self) -> String {
        let items = self.vmodule.iter();
        let items = items.map(|item| format!("{}={}", item.file_pattern, item.verbosity));
        items.collect::<Vec<_>>().join(",")
    }
}

/// Once a number of nanoseconds, a duration's text since.
fn nanoseconds_or_text<'de, D: Deserializer<'de>>(de: D) -> Result<GoDuration, D::Error> {
    let text = match Value::deserialize(de)? {
        Value::Number(nanoseconds) => format!("{nanoseconds}ns"),
        Value::String(text) => text,
        other => other.to_string(),
    };
    text.parse().map_err(serde::de::Error::custom)
}

fn number_or_text<'de, D: Deserializer<'de>>(de: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(de)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}
