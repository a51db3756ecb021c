//! What a server chooses itself, made equal: uids, times, revisions, addresses and
//! ports, random parts of names, tokens; and the order of managers, which is that of the
//! seconds they wrote in. Whatever the corpus says itself stays.

use serde_json::Value;

use super::wire::Field;

/// Everything that the corpus says, to be searched.
pub struct Normal {
    said: String,
}

impl Normal {
    pub fn new(said: String) -> Self {
        Self { said }
    }

    /// Makes a body, or what is stored as JSON, comparable.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::String(text) if key == "resourceVersion" && !text.is_empty() => {
                            *text = "REVISION".into();
                        }
                        Value::String(text) if key == "token" => *text = "TOKEN".into(),
                        Value::Number(number) if key.to_lowercase().ends_with("nodeport") => {
                            if !self.said.contains(&number.to_string()) {
                                *value = "PORT".into();
                            }
                        }
                        _ => self.json(value),
                    }
                    if key == "managedFields"
                        && let Value::Array(managers) = value
                    {
                        managers.sort_by_cached_key(Value::to_string);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::String(text) => self.text(text),
            _ => {}
        }
    }

    /// Makes a stored message comparable.
    pub fn wire(&self, fields: &mut [Field], now: u64) {
        for field in fields.iter_mut() {
            match field {
                Field::Message(_, fields) => self.wire(fields, now),
                Field::Text(_, text) => self.text(text),
                // Of all numbers only times and ports are the server's choice.
                Field::Number(_, value) if value.abs_diff(now) < 3600 => *value = 0,
                Field::Number(_, value) if (30000..32768).contains(value) => {
                    if !self.said.contains(&value.to_string()) {
                        *value = 0;
                    }
                }
                Field::Number(..) | Field::Bytes(..) => {}
            }
        }
        let (mut managers, others) = fields.iter().cloned().partition::<Vec<_>, _>(is_manager);
        managers.sort_by_cached_key(|manager| format!("{manager:?}"));
        let ordered = others.into_iter().chain(managers);
        fields
            .iter_mut()
            .zip(ordered)
            .for_each(|(field, in_order)| *field = in_order);
    }

    fn text(&self, text: &mut String) {
        const VOLUME: &str = "kube-api-access-";
        if let Some(start) = text.find(VOLUME) {
            let end = (start + VOLUME.len() + 5).min(text.len());
            text.replace_range(start..end, VOLUME);
        } else if !self.said.contains(text.as_str()) {
            if is_uid(text) {
                *text = "UID".into();
            } else if is_time(text) {
                *text = "TIME".into();
            } else if text.starts_with("10.96.") {
                *text = "ADDRESS".into();
            }
        }
    }
}

/// An entry of `managedFields`, field 17 of metadata: who, and how.
fn is_manager(field: &Field) -> bool {
    let how =
        |field: &Field| matches!(field, Field::Text(2, how) if how == "Update" || how == "Apply");
    matches!(field, Field::Message(17, entry) if entry.iter().any(how))
}

fn is_uid(text: &str) -> bool {
    shape(text) == "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
}

fn is_time(text: &str) -> bool {
    text.ends_with('Z') && shape(text).starts_with("xxxx-xx-xxTxx:xx:xx")
}

/// Hexadecimal digits as `x`.
fn shape(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_hexdigit() { 'x' } else { c })
        .collect()
}
