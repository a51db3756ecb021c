//! Flags over the configuration of the files, whose fields they write as a tree.

use std::collections::BTreeMap;

use clap::{ArgMatches, FromArgMatches};
use component::flags::{GoDuration, is_set, parse_bool};
use meta::gofmt::Quoted;
use serde_json::{Value, json};

use super::OptionsError;
use super::table::{CONFIG_FLAGS, Kind};
use crate::config::validation;

pub fn fields(matches: &ArgMatches, config: &mut Value) -> Result<(), OptionsError> {
    for (flag, path, kind) in CONFIG_FLAGS {
        if !is_set(matches, flag) {
            continue;
        }
        let given: Vec<&str> = matches
            .get_many::<String>(flag)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let last = given.last().copied().unwrap_or_default();
        let wrong = |why: &str| OptionsError::Flag {
            flag,
            value: last.to_owned(),
            why: why.to_owned(),
        };
        let value = match kind {
            Kind::Bool => json!(parse_bool(last).ok_or_else(|| wrong(&not_bool(last)))?),
            Kind::Int => json!(last.parse::<i64>().map_err(|_| {
                let last = Quoted(last);
                wrong(&format!("strconv.ParseInt: parsing {last}: invalid syntax"))
            })?),
            Kind::Text => json!(last),
            Kind::Duration => duration(flag, last)?,
            Kind::List => json!(
                given
                    .iter()
                    .flat_map(|t| t.split(','))
                    .filter(|t| !t.is_empty())
                    .collect::<Vec<_>>()
            ),
            Kind::Map => object(given.iter().map(|t| pairs(flag, t, '=')))?,
            Kind::Multimap => {
                let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for text in &given {
                    for (name, value) in pairs(flag, text, ':')? {
                        all.entry(name).or_default().push(value);
                    }
                }
                json!(all)
            }
            Kind::Thresholds => object(given.iter().map(|t| pairs(flag, t, '<')))?,
            Kind::Gates => {
                // Gates of the file that no flag names stay as they are.
                let mut gates = config["featureGates"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default();
                for (name, value) in pairs(flag, &given.join(","), '=')? {
                    let on = parse_bool(&value).ok_or_else(|| wrong(&not_bool(&value)))?;
                    gates.insert(name, json!(on));
                }
                Value::Object(gates)
            }
            Kind::Memory => {
                let lists = given.iter().map(|t| validation::reserved_memory(t));
                let lists = lists.collect::<Result<Vec<_>, _>>();
                json!(lists.map_err(|why| wrong(&why))?.concat())
            }
            Kind::Taints => {
                let taints = given
                    .iter()
                    .flat_map(|t| t.split(','))
                    .filter(|t| !t.is_empty());
                json!(
                    taints
                        .map(taint)
                        .collect::<Option<Vec<_>>>()
                        .ok_or_else(|| wrong("not <key>=<value>:<effect>"))?
                )
            }
        };
        let mut at = &mut *config;
        for field in path.split('.') {
            at = &mut at[field];
        }
        *at = value;
    }
    Ok(())
}

type Pairs = Vec<(String, String)>;

fn object(lists: impl Iterator<Item = Result<Pairs, OptionsError>>) -> Result<Value, OptionsError> {
    let all: Vec<Pairs> = lists.collect::<Result<_, _>>()?;
    Ok(Value::Object(
        all.into_iter()
            .flatten()
            .map(|(key, value)| (key, json!(value)))
            .collect(),
    ))
}

pub fn pairs(flag: &'static str, text: &str, separator: char) -> Result<Pairs, OptionsError> {
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| match item.split_once(separator) {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            None => Err(OptionsError::Flag {
                flag,
                value: item.to_owned(),
                why: format!("not <key>{separator}<value>"),
            }),
        })
        .collect()
}

fn taint(text: &str) -> Option<Value> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    let known = matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute");
    (known && !key.is_empty()).then(|| json!({"key": key, "value": value, "effect": effect}))
}

/// The flags of logs are older than their fields.
pub fn logging(matches: &ArgMatches, logging: &mut Value) -> Result<(), OptionsError> {
    let flags = component::logs::Options::from_arg_matches(matches);
    let flags = flags.map_err(|error| OptionsError::Logging(error.to_string()))?;
    let options = &mut logging["options"];
    for (flag, field, value) in [
        (
            "log-text-split-stream",
            "text",
            json!({"splitStream": flags.text_split_stream}),
        ),
        (
            "log-text-info-buffer-size",
            "text",
            json!({"infoBufferSize": flags.text_info_buffer}),
        ),
        (
            "log-json-split-stream",
            "json",
            json!({"splitStream": flags.json_split_stream}),
        ),
        (
            "log-json-info-buffer-size",
            "json",
            json!({"infoBufferSize": flags.json_info_buffer}),
        ),
    ] {
        if let (true, Value::Object(option)) = (is_set(matches, flag), value) {
            for (name, value) in option {
                options[field][name] = value;
            }
        }
    }
    if is_set(matches, "v") {
        logging["verbosity"] = json!(flags.verbosity);
    }
    if is_set(matches, "logging-format") {
        logging["format"] = json!(flags.format);
    }
    if is_set(matches, "log-flush-frequency") {
        logging["flushFrequency"] = duration("log-flush-frequency", &flags.flush_frequency)?;
    }
    if is_set(matches, "vmodule") {
        let modules = pairs("vmodule", &flags.vmodule, '=')?.into_iter();
        let modules = modules.map(|(pattern, level)| match level.parse::<u32>() {
            Ok(level) => Ok(json!({"filePattern": pattern, "verbosity": level})),
            Err(error) => Err(OptionsError::Flag {
                flag: "vmodule",
                value: flags.vmodule.clone(),
                why: error.to_string(),
            }),
        });
        logging["vmodule"] = Value::Array(modules.collect::<Result<_, _>>()?);
    }
    Ok(())
}

/// In Go's words.
pub fn not_bool(text: &str) -> String {
    format!(
        "strconv.ParseBool: parsing {}: invalid syntax",
        Quoted(text)
    )
}

fn duration(flag: &'static str, text: &str) -> Result<Value, OptionsError> {
    match text.parse::<GoDuration>() {
        Ok(duration) => Ok(json!(duration)),
        Err(error) => Err(OptionsError::Flag {
            flag,
            value: text.to_owned(),
            why: error.to_string(),
        }),
    }
}
