//! YAML text into JSON's data model, by way of the event parser below serde-saphyr.
//! serde's own view of YAML would not do: it reads scalars by YAML 1.2.

use std::collections::HashMap;

use meta::gofmt::Quoted;
use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, Span, StrInput, Tag,
};

use super::scalar;
use crate::MAX_DEPTH;
use crate::error::{Error, Result};

/// Bytes of text that aliases may stand for in all. What is larger is no object that could be
/// kept; Go shares the text of strings and has no such bound.
const MOST_ALIASED_TEXT: usize = 32 << 20;

/// go-yaml's bound on aliases: how large a part of all values they may stand for, so that a small
/// document stays small and a large one may repeat itself.
fn too_many_aliased(aliased: usize, all: usize) -> bool {
    const SMALL: f64 = 400_000.0;
    const LARGE: f64 = 4_000_000.0;
    let (part, all) = (aliased as f64 / all as f64, all as f64);
    let allowed = 0.99 - 0.89 * ((all - SMALL) / (LARGE - SMALL)).clamp(0.0, 1.0);
    aliased > 100 && all > 1000.0 && part > allowed
}

/// What a value is made of.
#[derive(Debug, Clone, Copy)]
struct Size {
    values: usize,
    /// Bytes.
    text: usize,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Size) {
        self.values += other.values;
        self.text += other.text;
    }
}

/// The first document of a YAML stream.
pub struct Parsed {
    pub value: Value,
    /// Keys that occur twice in a mapping, in go-yaml's words.
    pub duplicates: Vec<String>,
}

/// go-yaml knows YAML 1.1 and the directives of it; the parser would know 1.2 as well.
fn check_directives(text: &str) -> Result<()> {
    for line in text.trim_start_matches('\u{feff}').lines() {
        let Some(directive) = line.strip_prefix('%') else {
            match line.trim_start() {
                rest if rest.is_empty() || rest.starts_with('#') => continue,
                _ => return Ok(()),
            }
        };
        let mut words = directive.split([' ', '\t']).filter(|word| !word.is_empty());
        match words.next() {
            Some("TAG") => {}
            Some("YAML") => {
                let number = |text: &str| text.parse::<u32>().ok();
                let version = words.next().and_then(|version| version.split_once('.'));
                if let Some((Some(major), Some(minor))) =
                    version.map(|(major, minor)| (number(major), number(minor)))
                    && (major, minor) != (1, 1)
                {
                    return Err(failed("found incompatible YAML document"));
                }
            }
            _ => return Err(failed("found unknown directive name")),
        }
    }
    Ok(())
}

/// A document cannot be indented by tabs, which the parser lets pass before its first value.
fn check_indentation(text: &str) -> Result<()> {
    for (i, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if line[..line.len() - content.len()].contains('\t') {
            return Err(failed(format_args!(
                "line {}: found character that cannot start any token",
                i + 1
            )));
        }
        break;
    }
    Ok(())
}

const UNKNOWN_ESCAPE: &str = "found unknown escape character";
const NO_CHARACTER: &str = "found invalid Unicode character escape code";

/// The parser tells more than go-yaml.
fn in_go_yamls_words(problem: &str) -> &str {
    match problem.strip_prefix("while parsing a quoted scalar, ") {
        Some(rest) if rest.contains("surrogate") => NO_CHARACTER,
        Some(rest) if rest.starts_with(UNKNOWN_ESCAPE) => UNKNOWN_ESCAPE,
        _ => problem,
    }
}

/// Quoted text cannot have the escapes that YAML 1.2 took over from JSON, which the parser lets
/// pass: `\/`, and characters written as two surrogates.
fn check_escapes(document: &str, span: &Span) -> Result<()> {
    let Some(quoted) = span.byte_range().and_then(|range| document.get(range)) else {
        return Ok(());
    };
    let mut rest = quoted;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at + 1..];
        let problem = match escape.as_bytes() {
            [b'/', ..] => Some(UNKNOWN_ESCAPE),
            [
                b'u',
                b'd' | b'D',
                b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F',
                ..,
            ] => Some(NO_CHARACTER),
            _ => None,
        };
        if let Some(problem) = problem {
            let before = quoted.len() - escape.len();
            let line = span.start.line() + quoted[..before].matches('\n').count();
            return Err(failed_at(line, problem));
        }
        // What is escaped may be a backslash itself.
        let escaped = escape.chars().next().map_or(0, char::len_utf8);
        rest = &escape[escaped..];
    }
    Ok(())
}

/// Reads the first document of a YAML stream; an empty stream is `null`.
pub fn parse(text: &str) -> Result<Parsed> {
    check_directives(text)?;
    check_indentation(text)?;
    let mut reader = Reader {
        text,
        parser: Parser::with_options(StrInput::new(text), options()),
        anchors: HashMap::new(),
        aliased: Size { values: 0, text: 0 },
        read: 0,
        duplicates: Vec::new(),
    };
    let value = loop {
        match reader.next()? {
            None | Some((Event::StreamEnd, _)) => break Value::Null,
            Some((Event::StreamStart | Event::DocumentStart(..) | Event::Comment(..), _)) => {}
            Some((Event::DocumentEnd, _)) => break Value::Null,
            Some((event, span)) => break reader.node(event, span, 0)?.0,
        }
    };
    Ok(Parsed {
        value,
        duplicates: reader.duplicates,
    })
}

struct Reader<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    /// Anchored values with what they are made of.
    anchors: HashMap<usize, (Value, Size)>,
    /// What aliases have stood for.
    aliased: Size,
    /// Values, those that aliases stand for included.
    read: usize,
    duplicates: Vec<String>,
}

/// The parser's own bounds are go-yaml's.
fn options() -> Options {
    serde_saphyr::granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    }
}

fn too_deep() -> Error {
    failed(format_args!("exceeded max depth of {MAX_DEPTH}"))
}

/// go-yaml does not name the first line.
fn failed_at(line: usize, problem: &str) -> Error {
    match line {
        0 | 1 => failed(problem),
        _ => failed(format_args!("line {line}: {problem}")),
    }
}

fn failed(text: impl std::fmt::Display) -> Error {
    Error::Syntax(format!("yaml: {text}"))
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) => {
                Err(too_deep())
            }
            Some(Err(error)) => {
                let problem = error.info();
                Err(failed_at(
                    error.marker().line(),
                    in_go_yamls_words(&problem),
                ))
            }
        }
    }

    /// The next event that matters.
    fn expect(&mut self) -> Result<(Event<'t>, Span)> {
        loop {
            match self.next()? {
                Some((Event::Comment(..), _)) => {}
                Some(event) => return Ok(event),
                None => return Err(failed("unexpected end of stream")),
            }
        }
    }

    /// The value that begins with this event, and what it is made of.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<(Value, Size)> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        self.read += 1;
        let one = Size { values: 1, text: 0 };
        let (value, size, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let size = Size {
                    text: text.len(),
                    ..one
                };
                if matches!(style, ScalarStyle::DoubleQuoted) {
                    check_escapes(self.text, &span)?;
                }
                (scalar_value(&text, style, tag.as_deref())?, size, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                let mut size = one;
                loop {
                    let (event, span) = self.expect()?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    let (item, n) = self.node(event, span, depth + 1)?;
                    items.push(item);
                    size += n;
                }
                (Value::Array(items), size, anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                let (members, size) = self.mapping(depth)?;
                (Value::Object(members), size, anchor)
            }
            Event::Alias(id) => {
                let Some((value, size)) = self.anchors.get(&id) else {
                    // go-yaml's words for an alias inside of its own anchor.
                    return Err(failed("anchor value contains itself"));
                };
                self.aliased += *size;
                self.read += size.values;
                if too_many_aliased(self.aliased.values, self.read)
                    || self.aliased.text > MOST_ALIASED_TEXT
                {
                    return Err(failed("document contains excessive aliasing"));
                }
                return Ok((value.clone(), *size));
            }
            _ => {
                let line = span.start.line();
                return Err(failed(format_args!(
                    "line {line}: did not find expected node content"
                )));
            }
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), size));
        }
        Ok((value, size))
    }

    fn mapping(&mut self, depth: usize) -> Result<(Map<String, Value>, Size)> {
        let mut members = Map::new();
        let mut size = Size { values: 1, text: 0 };
        loop {
            let (event, span) = self.expect()?;
            if matches!(event, Event::MappingEnd) {
                return Ok((members, size));
            }
            let merge = matches!(
                &event,
                Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<"
            );
            let (key, n) = self.node(event, span, depth + 1)?;
            size += n;
            let (event, span) = self.expect()?;
            let line = span.start.line();
            let (value, n) = self.node(event, span, depth + 1)?;
            size += n;
            if merge {
                self.merge(&mut members, value, line)?;
                continue;
            }
            let (key, shown) = key_text(key)?;
            self.insert(&mut members, key, &shown, value, line);
        }
    }

    /// Go keeps the first value of a key when it is strict, and the last when it is not;
    /// who is strict refuses the body anyway.
    fn insert(
        &mut self,
        members: &mut Map<String, Value>,
        key: String,
        shown: &str,
        value: Value,
        line: usize,
    ) {
        if members.insert(key, value).is_some() {
            self.duplicates
                .push(format!("line {line}: key {shown} already set in map"));
        }
    }

    /// `<<`: the members of one mapping or of several, the first of which counts most.
    fn merge(&mut self, into: &mut Map<String, Value>, value: Value, line: usize) -> Result<()> {
        let wanted = || failed("map merge requires map or sequence of maps as the value");
        let maps = match value {
            Value::Object(members) => vec![members],
            Value::Array(items) => items
                .into_iter()
                .rev()
                .map(|item| match item {
                    Value::Object(members) => Ok(members),
                    _ => Err(wanted()),
                })
                .collect::<Result<_>>()?,
            _ => return Err(wanted()),
        };
        for members in maps {
            for (key, value) in members {
                let shown = Quoted(&key).to_string();
                self.insert(into, key, &shown, value, line);
            }
        }
        Ok(())
    }
}

/// A key as JSON has it, and as Go shows it in an error.
fn key_text(key: Value) -> Result<(String, String)> {
    Ok(match key {
        Value::String(text) => {
            let shown = Quoted(&text).to_string();
            (text, shown)
        }
        Value::Bool(v) => (v.to_string(), v.to_string()),
        Value::Number(v) => {
            let text = match v.as_f64() {
                Some(float) if v.is_f64() => (float as f32).to_string(),
                _ => v.to_string(),
            };
            (text.clone(), text)
        }
        Value::Null => return Err(Error::Syntax("unsupported map key of type: nil".into())),
        Value::Array(_) | Value::Object(_) => return Err(failed("invalid map key")),
    })
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value> {
    let tag = tag.map_or("", |tag| tag.core_suffix().unwrap_or(tag.suffix()));
    let wrong = |is: &str| failed(format_args!("cannot decode !!{is} `{text}` as a !!{tag}"));
    if tag == "binary" {
        let bytes = crate::assemble::decode_base64(text)
            .map_err(|_| failed("!!binary value contains invalid base64 data"))?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned().into());
    }
    let plain = style == ScalarStyle::Plain;
    if !matches!(tag, "" | "bool" | "int" | "float" | "null") || tag.is_empty() && !plain {
        return Ok(text.into());
    }
    let value = scalar::resolve(text)
        .map_err(|name| Error::Syntax(format!("json: unsupported value: {name}")))?;
    match (tag, &value) {
        ("", _)
        | ("bool", Value::Bool(_))
        | ("null", Value::Null)
        | ("float", Value::Number(_)) => Ok(value),
        ("int", Value::Number(v)) if !v.is_f64() => Ok(value),
        (_, Value::Bool(_)) => Err(wrong("bool")),
        (_, Value::Null) => Err(wrong("null")),
        (_, Value::Number(v)) => Err(wrong(if v.is_f64() { "float" } else { "int" })),
        _ => Err(wrong("str")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Value {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).value
    }

    #[test]
    fn documents_become_json() {
        assert_eq!(read(""), json!(null));
        assert_eq!(read("# only a comment\n"), json!(null));
        assert_eq!(read("---\na: 1\n---\nb: 2\n"), json!({"a": 1}));
        assert_eq!(
            read("a: [1, '1', yes, \"yes\", ~]\nb:\n- c: |\n    x\n    y\n- {}\n"),
            json!({"a": [1, "1", true, "yes", null], "b": [{"c": "x\ny\n"}, {}]})
        );
        assert_eq!(
            read("{\"a\": {\"b\": [1.5, null]}}"),
            json!({"a": {"b": [1.5, null]}})
        );
        assert_eq!(
            read("1: a\ntrue: b\non: c\n"),
            json!({"1": "a", "true": "c"})
        );
        assert_eq!(
            read("a: !!str 1\nb: !!int \"2\"\n"),
            json!({"a": "1", "b": 2})
        );
    }

    #[test]
    fn anchors_and_merges_are_resolved() {
        let text = "base: &b {p: 1, q: 2}\nother: *b\nboth:\n  <<: *b\n  r: 3\n";
        let b = json!({"p": 1, "q": 2});
        let want = json!({"base": b, "other": b, "both": {"p": 1, "q": 2, "r": 3}});
        assert_eq!(read(text), want);
    }

    #[test]
    fn directives_are_those_of_yaml_1_1() {
        let error = |text: &str| parse(text).err().map(|e| e.to_string());
        assert_eq!(
            read("# c\n%YAML 1.1 # c\n---\na: yes\n"),
            json!({"a": true})
        );
        assert_eq!(error("%TAG !e! tag:e,2000:\n---\na: 1\n"), None);
        assert_eq!(error("a: 1\n---\n%YAML 1.2\n"), None);
        for version in ["1.0", "1.2", "2.0"] {
            let error = error(&format!("%YAML {version}\n---\na: 1\n")).unwrap();
            assert_eq!(error, "yaml: found incompatible YAML document", "{version}");
        }
        let unknown = error("%FOO bar\n---\na: 1\n").unwrap();
        assert_eq!(unknown, "yaml: found unknown directive name");
    }

    #[test]
    fn escapes_are_those_of_yaml_1_1() {
        let error = |text: &str| parse(text).err().map(|e| e.to_string());
        let said = |line: usize, what: &str| Some(format!("yaml: line {line}: {what}"));
        assert_eq!(error("a: 1\nb: \"x\\/\""), said(2, UNKNOWN_ESCAPE));
        assert_eq!(error("a: \"\n  \\ud83d\\ude00\""), said(2, NO_CHARACTER));
        assert_eq!(
            error("a: \"\\ud83d\""),
            Some(format!("yaml: {NO_CHARACTER}"))
        );
        assert_eq!(error("a: \"\\q\""), Some(format!("yaml: {UNKNOWN_ESCAPE}")));
        assert_eq!(read("a: \"\\\\/ \\u00e4\""), json!({"a": "\\/ ä"}));
        assert_eq!(read("a: 'x\\/'"), json!({"a": "x\\/"}));
    }

    #[test]
    fn duplicates_are_listed() {
        let parsed = parse("a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(parsed.value, json!({"a": 3, "b": 2}));
        assert_eq!(parsed.duplicates, ["line 3: key \"a\" already set in map"]);
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        for text in ["a: [1", "\"a", "a: b: c", "- a\nb: 1", "a: *x", "\ta: b"] {
            let error = parse(text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.starts_with("yaml: "), "{text:?}: {error:?}");
        }
        assert!(parse("a: .inf").is_err());
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let items = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{items}]\n"));
        }
        let error = parse(&text).err().unwrap().to_string();
        assert_eq!(error, "yaml: document contains excessive aliasing");
    }

    #[test]
    fn depth_is_go_yamls() {
        crate::on_a_deep_stack(|| {
            let error = |text: &str| parse(text).err().map(|e| e.to_string());
            let too_deep = Some("yaml: exceeded max depth of 10000".to_owned());
            for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
                let nested = |depth: usize| open.repeat(depth) + "x" + &close.repeat(depth);
                assert_eq!(error(&nested(10_000)), None, "{open}");
                assert_eq!(error(&nested(10_001)), too_deep, "{open}");
            }
        });
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String, near in "[-a1: \n\\[\\]{}&*|>\"'!<#,?]{0,40}") {
            let _ = parse(&text);
            let _ = parse(&near);
        }
    }
}
