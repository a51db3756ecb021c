//! What differs from run to run, replaced by words that do not: uids, random parts of names,
//! hashes, addresses, times.

use std::collections::HashMap;

use serde_json::Value;

use super::mirror::Known;

/// The words of one scenario.
pub struct Names {
    /// Longest first, so that no word destroys a longer one.
    replaced: Vec<(String, String)>,
}

impl Names {
    /// From what was seen of a scenario, in order.
    pub fn of(scope: &str, known: &[(String, Known)]) -> Self {
        let mut replaced = vec![(scope.to_owned(), "NS".to_owned())];
        let mut hashes: HashMap<(&str, &str), usize> = HashMap::new();
        for (_, known) in known {
            if let Some((hash, owner)) = &known.hash
                && !hash.is_empty()
            {
                let count = hashes.entry((known.kind, owner)).or_default();
                *count += 1;
                replaced.push((hash.clone(), format!("#{count}")));
            }
        }
        let by_hash = |text: &str| {
            let mut text = text.to_owned();
            for (from, to) in &replaced {
                text = text.replace(from, to);
            }
            text
        };
        let mut more = Vec::new();
        for (uid, known) in known {
            let name = match &known.generate_name {
                Some(prefix) => format!("{prefix}*"),
                None => known.name.clone(),
            };
            let name = by_hash(&name);
            if known.generate_name.is_some() {
                more.push((known.name.clone(), name.clone()));
            }
            if let Some(ip) = &known.pod_ip {
                more.push((ip.clone(), format!("<IP of {name}>")));
            }
            more.push((uid.clone(), format!("<uid of {}/{name}>", known.kind)));
        }
        replaced.extend(more);
        replaced.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.cmp(b)));
        replaced.dedup();
        Self { replaced }
    }

    /// A text in those words.
    pub fn text(&self, text: &str) -> String {
        if is_time(text) {
            return "TIME".to_owned();
        }
        let mut text = text.to_owned();
        for (from, to) in &self.replaced {
            if text.contains(from) {
                text = text.replace(from, to);
            }
        }
        refused(&nodes(&minutes(&token_volumes(&text))))
    }

    /// The words of an event: times within, too.
    pub fn message(&self, text: &str) -> String {
        let text = listed(&self.text(text));
        let clock = text.as_bytes().windows(8).any(|w| {
            w[2] == b':'
                && w[5] == b':'
                && [0, 1, 3, 4, 6, 7].iter().all(|i| w[*i].is_ascii_digit())
        });
        if clock {
            text.replace(|c: char| c.is_ascii_digit(), "0")
        } else {
            text
        }
    }

    /// An object in those words, in order where order says nothing.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => {
                let mut items: Vec<_> = items.iter().map(|item| self.value(item)).collect();
                if items.iter().any(|i| i.is_object()) && unordered(&items) {
                    items.sort_by_cached_key(Value::to_string);
                }
                Value::Array(items)
            }
            Value::Object(fields) => {
                let fields = fields.iter();
                fields.map(|(k, v)| (self.text(k), self.value(v))).collect()
            }
            other => other.clone(),
        }
    }
}

/// Endpoints are in the order of their addresses, which are drawn; so are references to jobs;
/// ports are in that of a hash.
fn unordered(items: &[Value]) -> bool {
    let first = &items[0];
    ["addresses", "ip", "targetRef", "uid", "protocol"]
        .iter()
        .any(|key| first.get(key).is_some())
}

/// RFC 3339, with or without fractions.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes.ends_with(b"Z")
}

/// Which of a scenario's nodes are first is up to whoever goes through them.
fn nodes(text: &str) -> String {
    const PREFIX: &str = "NS-n";
    let mut parts = text.split(PREFIX);
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        all.push_str(PREFIX);
        if rest.len() < part.len() {
            all.push('*');
        }
        all.push_str(rest);
    }
    all
}

/// What was refused had a name already, of which the end was drawn.
fn refused(text: &str) -> String {
    const WORDS: &str = "\" is forbidden: ";
    match text.find(WORDS) {
        Some(at) if at > 6 && text.as_bytes()[at - 6] == b'-' => {
            format!("{}*{}", &text[..at - 5], &text[at..])
        }
        _ => text.to_owned(),
    }
}

/// What stands in brackets is a set.
fn listed(text: &str) -> String {
    let Some((before, rest)) = text.split_once('[') else {
        return text.to_owned();
    };
    let Some((set, after)) = rest.split_once(']') else {
        return text.to_owned();
    };
    let mut set: Vec<_> = set.split(' ').collect();
    set.sort_unstable();
    format!("{before}[{}]{after}", set.join(" "))
}

/// Jobs of CronJobs are named by the minute they were due.
fn minutes(text: &str) -> String {
    let Some(at) = text.find("-2").or_else(|| text.find("-3")) else {
        return text.to_owned();
    };
    let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit);
    if digits.count() != 8 {
        return text.to_owned();
    }
    format!("{}-MINUTE{}", &text[..at], minutes(&text[at + 9..]))
}

/// The volume of a service account's token has a random name.
fn token_volumes(text: &str) -> String {
    const PREFIX: &str = "kube-api-access-";
    match text.find(PREFIX) {
        Some(at) if text.len() >= at + PREFIX.len() + 5 => {
            let end = at + PREFIX.len();
            format!("{}*{}", &text[..end], &text[end + 5..])
        }
        _ => text.to_owned(),
    }
}
