//! How cells are written: ages, selectors, lists.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub const NONE: &str = "<none>";
pub const UNKNOWN: &str = "<unknown>";
pub const UNSET: &str = "<unset>";

/// The time between a timestamp and now, `<unknown>` when there is none.
pub fn since(time: &Value, now: Timestamp) -> String {
    match timestamp(time) {
        Some(then) => duration(now.duration_since(then)),
        None => UNKNOWN.to_owned(),
    }
}

pub fn timestamp(time: &Value) -> Option<Timestamp> {
    time.as_str()?.parse().ok()
}

/// A duration in at most two units, coarser the longer it is (`HumanDuration`).
pub fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

/// `a=1,b=2`; `<none>` for no labels.
pub fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(pairs.join(","))
}

/// A `metav1.LabelSelector` in the notation of Go's generated code, which upstream prints where
/// a selector takes the place of a name.
pub fn go_selector(selector: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels: String = labels
        .map(|(key, value)| format!("{key}: {},", text(value)))
        .collect();
    let expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let expressions: String = expressions
        .map(|e| {
            let values = e["values"].as_array().into_iter().flatten();
            let values: Vec<String> = values.map(text).collect();
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                text(&e["key"]),
                text(&e["operator"]),
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

/// A `metav1.LabelSelector` as a selector string.
pub fn selector(selector: &Value) -> String {
    if selector.is_null() {
        return NONE.to_owned();
    }
    match serde_json::from_value(selector.clone())
        .map(Some)
        .map(|s| meta::labels::Selector::from_label_selector(s.as_ref()).map(|s| s.to_string()))
    {
        Ok(Ok(text)) => or_none(text),
        _ => "<error>".to_owned(),
    }
}

pub fn or_none(text: String) -> String {
    if text.is_empty() {
        NONE.to_owned()
    } else {
        text
    }
}

/// A text field of each of a list's items, joined.
pub fn joined(items: &[Value], field: &str) -> String {
    let texts: Vec<&str> = items
        .iter()
        .filter_map(|item| item[field].as_str())
        .collect();
    texts.join(",")
}

/// The texts of a list, joined.
pub fn texts(items: &[Value]) -> String {
    items
        .iter()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join(",")
}

/// `RWO,ROX`: access modes of volumes.
pub fn access_modes(modes: &[Value]) -> String {
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .iter()
    .filter(|(mode, _)| has(mode))
    .map(|(_, short)| *short)
    .collect::<Vec<_>>()
    .join(",")
}
