//! JSON into a tree, member by member against the schema, as sigs.k8s.io/json decodes
//! into Go structs: names match exactly, `null` is no value, the first value of a wrong
//! type is the error once the whole text has been read.

use base64::Engine as _;
use meta::gofmt::Quoted;
use schema::{Cardinality, Field, Message, Special, Type};
use serde_json::{Map, Value};

use super::{DecodeError, Decoded, Strictness};
use crate::assemble::{Finder, decode_base64, go_name};
use crate::error::{Error, Result};
use crate::json::read::{Kind, Reader};
use crate::special;

/// Upstream stops listing here.
const MOST_ERRORS: usize = 100;

/// Reads a JSON body.
///
/// # Errors
/// The body is no JSON, or a value does not fit its type.
pub fn json(
    msg: &'static Message,
    body: &[u8],
    strictness: Strictness,
) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder {
        json: Reader::new(body),
        strict: strictness != Strictness::Ignore,
        strict_errors: Vec::new(),
        path: String::new(),
        names: Vec::new(),
        structs: Vec::new(),
        nested: None,
        no_kind: None,
        fatal: None,
        saved: None,
    };
    let mut members = Map::new();
    decoder.root(msg, &mut members).map_err(no_kind)?;
    match decoder.no_kind.or(decoder.fatal).or(decoder.saved) {
        Some(error) => Err(error),
        None => Ok(Decoded {
            value: Value::Object(members),
            strict_errors: decoder.strict_errors,
        }),
    }
}

/// Upstream reads the kind before anything else, and finds broken JSON then.
fn no_kind(error: Error) -> Error {
    Error::Syntax(format!(
        "couldn't get version/kind; json parse error: {error}"
    ))
}

struct Decoder<'a> {
    json: Reader<'a>,
    strict: bool,
    strict_errors: Vec<String>,
    /// Where we are, as strict errors say it: `spec.containers[0]`.
    path: String,
    /// Where we are, as Go's type errors say it: without indexes, with the names of
    /// inlined structs.
    names: Vec<&'static str>,
    /// The messages around us.
    structs: Vec<&'static Message>,
    /// The message around a type that upstream decodes by a decoder of its own.
    nested: Option<&'static Message>,
    /// The kind or the API version is no string.
    no_kind: Option<Error>,
    /// The first error that made upstream stop.
    fatal: Option<Error>,
    /// The first error that upstream kept for the end.
    saved: Option<Error>,
}

/// The last part of a message's name, which is Go's name of the struct.
fn struct_name(msg: &Message) -> &'static str {
    msg.name.rsplit('.').next().unwrap_or_default()
}

/// Finds a field in inlined structs and notes their Go names on the way to it.
fn inlined(
    msg: &'static Message,
    key: &str,
    names: &mut Vec<&'static str>,
) -> Option<&'static Field> {
    msg.fields
        .iter()
        .filter(|f| f.json.is_empty())
        .find_map(|f| {
            let Type::Message(inner) = &f.ty else {
                return None;
            };
            names.push(struct_name(inner));
            let found = Finder::new(inner)
                .direct(key)
                .or_else(|| inlined(inner, key, names));
            if found.is_none() {
                names.pop();
            }
            found
        })
}

impl Decoder<'_> {
    fn root(&mut self, msg: &'static Message, into: &mut Map<String, Value>) -> Result<()> {
        match self.json.peek()? {
            Kind::Object => self.members(msg, into)?,
            Kind::Null => self.json.null()?,
            other => {
                // The struct into which upstream reads the kind has no name.
                let wanted = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; \
                              Kind string \"json:\\\"kind,omitempty\\\"\" }";
                self.no_kind = Some(no_kind(Error::mismatch(other.word(), wanted)));
                self.json.skip()?;
            }
        }
        self.json.end()
    }

    fn fatal(&mut self, error: Error) {
        self.fatal.get_or_insert(error);
    }

    /// An error of encoding/json, which knows where it is.
    fn context(&self, found: &str, wanted: &str) -> Error {
        let Some(msg) = self.nested.or(self.structs.last().copied()) else {
            return Error::mismatch(found, wanted);
        };
        Error::value(format!(
            "json: cannot unmarshal {found} into Go struct field {}.{} of type {wanted}",
            struct_name(msg),
            self.names.join(".")
        ))
    }

    fn mismatch(&mut self, found: &str, wanted: &str) {
        let error = self.context(found, wanted);
        match (self.nested, &self.names[..]) {
            (Some(_), _) => self.fatal(error),
            (None, ["TypeMeta", name]) => {
                let error = format!(
                    "json: cannot unmarshal {found} into Go struct field .{name} of type {wanted}"
                );
                self.no_kind.get_or_insert(no_kind(Error::value(error)));
            }
            (None, _) => {
                self.saved.get_or_insert(error);
            }
        }
    }

    /// A mismatch inside of an UnmarshalJSON, which upstream does not outlive.
    fn fatal_mismatch(&mut self, found: &str, wanted: &str) {
        let error = self.context(found, wanted);
        self.fatal(error);
    }

    fn strict_error(&mut self, what: &str, key: &str) {
        if !self.strict || self.strict_errors.len() >= MOST_ERRORS {
            return;
        }
        let dot = if self.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{key}", self.path);
        let error = format!("{what} {}", Quoted(&path));
        if !self.strict_errors.contains(&error) {
            self.strict_errors.push(error);
        }
    }

    /// Goes a step down the path, and back when it is done.
    fn at<T>(&mut self, step: Step, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if !self.strict {
            return f(self);
        }
        let len = self.path.len();
        match step {
            Step::Key(key) => {
                if len > 0 {
                    self.path.push('.');
                }
                self.path.push_str(key);
            }
            Step::Index(i) => {
                self.path.push('[');
                self.path.push_str(itoa::Buffer::new().format(i));
                self.path.push(']');
            }
        }
        let done = f(self);
        self.path.truncate(len);
        done
    }

    fn members(&mut self, msg: &'static Message, into: &mut Map<String, Value>) -> Result<()> {
        self.json.object()?;
        let mut finder = Finder::new(msg);
        let mut seen: Vec<&'static str> = Vec::new();
        let mut first = true;
        while let Some(key) = self.json.key(&mut first)? {
            let depth = self.names.len();
            let Some(field) = finder
                .direct(&key)
                .or_else(|| inlined(msg, &key, &mut self.names))
            else {
                self.strict_error("unknown field", &key);
                self.json.skip()?;
                continue;
            };
            if self.strict {
                if seen.contains(&field.json) {
                    self.strict_error("duplicate field", field.json);
                } else {
                    seen.push(field.json);
                }
            }
            self.names.push(field.json);
            self.structs.push(msg);
            self.at(Step::Key(field.json), |d| d.field(field, msg, into))?;
            self.structs.pop();
            self.names.truncate(depth);
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &'static Field,
        parent: &'static Message,
        into: &mut Map<String, Value>,
    ) -> Result<()> {
        if self.json.peek()? == Kind::Null {
            // Go sets pointers, lists, maps and what has a zero value of its own to that,
            // and leaves other values alone.
            let zeroed = matches!(
                field.ty,
                Type::Bytes | Type::Special(Special::Time | Special::MicroTime | Special::Quantity)
            );
            if field.pointer || field.cardinality != Cardinality::One || zeroed {
                into.remove(field.json);
            }
            return self.json.null();
        }
        match field.cardinality {
            Cardinality::One => {
                let before = into.remove(field.json);
                if let Some(value) = self.value(&field.ty, parent, before)? {
                    into.insert(field.json.into(), value);
                }
            }
            Cardinality::List => {
                let kind = self.json.peek()?;
                if kind != Kind::Array {
                    self.mismatch(kind.word(), &format!("[]{}", go_name(&field.ty)));
                    return self.json.skip();
                }
                // Items of an earlier member of the same name are merged into.
                let mut before = match into.remove(field.json) {
                    Some(Value::Array(items)) => items.into_iter(),
                    _ => Vec::new().into_iter(),
                };
                let mut items = Vec::new();
                self.elements(|d| {
                    items.push(d.item(&field.ty, parent, before.next())?);
                    Ok(())
                })?;
                into.insert(field.json.into(), Value::Array(items));
            }
            Cardinality::Map => {
                let kind = self.json.peek()?;
                if kind != Kind::Object {
                    self.mismatch(kind.word(), &format!("map[string]{}", go_name(&field.ty)));
                    return self.json.skip();
                }
                let mut entries = match into.remove(field.json) {
                    Some(Value::Object(entries)) => entries,
                    _ => Map::new(),
                };
                self.entries(&field.ty, parent, &mut entries)?;
                into.insert(field.json.into(), Value::Object(entries));
            }
        }
        Ok(())
    }

    fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.json.array()?;
        let mut first = true;
        let mut i = 0;
        while self.json.element(&mut first)? {
            self.at(Step::Index(i), &mut each)?;
            i += 1;
        }
        Ok(())
    }

    fn entries(
        &mut self,
        ty: &'static Type,
        parent: &'static Message,
        into: &mut Map<String, Value>,
    ) -> Result<()> {
        self.json.object()?;
        let before = into.len();
        let mut first = true;
        let mut seen = Vec::new();
        while let Some(key) = self.json.key(&mut first)? {
            let key = key.into_owned();
            let value = self.at(Step::Key(&key), |d| d.item(ty, parent, None))?;
            // Entries of an earlier member of the same name are no duplicates.
            let twice = match before {
                0 => into.contains_key(&key),
                _ => seen.contains(&key),
            };
            if twice {
                self.strict_error("duplicate field", &key);
            }
            if before > 0 {
                seen.push(key.clone());
            }
            into.insert(key, value);
        }
        Ok(())
    }

    /// A list's item or a map's value, where `null` is the zero value.
    fn item(
        &mut self,
        ty: &'static Type,
        parent: &'static Message,
        before: Option<Value>,
    ) -> Result<Value> {
        if self.json.peek()? == Kind::Null {
            self.json.null()?;
            return Ok(match ty {
                Type::Message(_) if before.is_some() => before.unwrap_or_default(),
                Type::Bool => Value::Bool(false),
                Type::Int32 | Type::Int64 | Type::Float64 => 0.into(),
                Type::String => "".into(),
                Type::Message(_) => Value::Object(Map::new()),
                Type::Special(Special::Quantity) => "0".into(),
                Type::Special(Special::IntOrString) => 0.into(),
                Type::Special(Special::Duration) => "0s".into(),
                _ => Value::Null,
            });
        }
        Ok(self.value(ty, parent, before)?.unwrap_or(Value::Null))
    }

    /// A single value, or nothing when it does not fit. `before` is the value of an
    /// earlier member of the same name, which a struct is merged into.
    fn value(
        &mut self,
        ty: &'static Type,
        parent: &'static Message,
        before: Option<Value>,
    ) -> Result<Option<Value>> {
        let kind = self.json.peek()?;
        Ok(match (ty, kind) {
            (Type::Special(special), kind) => self.special(*special, parent, kind)?,
            (Type::Message(msg), Kind::Object) => {
                let mut members = match before {
                    Some(Value::Object(members)) => members,
                    _ => Map::new(),
                };
                self.members(msg, &mut members)?;
                Some(Value::Object(members))
            }
            (Type::Bool, Kind::Bool) => Some(Value::Bool(self.json.bool()?)),
            (Type::String, Kind::String) => Some(Value::String(self.json.string()?.into_owned())),
            (Type::Bytes, Kind::String) => {
                let text = self.json.string()?;
                match decode_base64(&text) {
                    Ok(bytes) => {
                        let engine = base64::engine::general_purpose::STANDARD;
                        Some(Value::String(engine.encode(bytes)))
                    }
                    Err(error) => {
                        self.saved.get_or_insert(error);
                        None
                    }
                }
            }
            (Type::Bytes, Kind::Array) => {
                let mut bytes = Vec::new();
                self.elements(|d| {
                    bytes.push(d.byte()?);
                    Ok(())
                })?;
                let engine = base64::engine::general_purpose::STANDARD;
                Some(Value::String(engine.encode(bytes)))
            }
            (Type::Int32 | Type::Int64 | Type::Float64, Kind::Number) => {
                let text = self.json.number()?;
                let value = match ty {
                    Type::Int32 => text.parse::<i32>().ok().map(Value::from),
                    Type::Int64 => text.parse::<i64>().ok().map(Value::from),
                    _ => text
                        .parse::<f64>()
                        .ok()
                        .filter(|v| v.is_finite())
                        .map(Value::from),
                };
                if value.is_none() {
                    self.mismatch(&format!("number {text}"), &go_name(ty));
                }
                value
            }
            (ty, kind) => {
                self.mismatch(kind.word(), &go_name(ty));
                self.json.skip()?;
                None
            }
        })
    }

    fn special(
        &mut self,
        special: Special,
        parent: &'static Message,
        kind: Kind,
    ) -> Result<Option<Value>> {
        if special == Special::FieldsV1 && kind != Kind::Null {
            let fields = self.json.tree()?;
            return Ok(Some(special::fields_v1::text(&fields).into()));
        }
        if special == Special::RawExtension && kind != Kind::Null {
            let text = String::from_utf8_lossy(self.json.raw()?);
            return Ok(Some(text.into_owned().into()));
        }
        if special::is_json(special) {
            return self.json.tree().map(Some);
        }
        Ok(match (special, kind) {
            (Special::IntOrString, Kind::Number) => {
                let text = self.json.number()?;
                match text.parse::<i32>() {
                    Ok(v) => Some(v.into()),
                    Err(_) => {
                        self.fatal_mismatch(&format!("number {text}"), "int32");
                        None
                    }
                }
            }
            (Special::IntOrString, Kind::String) => {
                Some(Value::String(self.json.string()?.into_owned()))
            }
            (Special::Quantity, Kind::Number) => {
                let text = self.json.number()?;
                self.text(special, text)
            }
            (
                Special::Quantity | Special::Time | Special::MicroTime | Special::Duration,
                Kind::String,
            ) => {
                let text = self.json.string()?;
                self.text(special, &text)
            }
            (Special::JsonSchemaPropsOrBool, Kind::Bool) => Some(Value::Bool(self.json.bool()?)),
            (
                Special::JsonSchemaPropsOrBool
                | Special::JsonSchemaPropsOrArray
                | Special::JsonSchemaPropsOrStringArray,
                Kind::Object,
            ) => Some(self.nested(|d| d.schema(parent))?),
            (Special::JsonSchemaPropsOrArray, Kind::Array) => {
                let mut items = Vec::new();
                self.nested(|d| {
                    d.elements(|d| {
                        items.push(d.item_schema(parent)?);
                        Ok(())
                    })
                })?;
                Some(Value::Array(items))
            }
            (Special::JsonSchemaPropsOrStringArray, Kind::Array) => {
                Some(self.nested(|d| d.texts(parent))?)
            }
            (Special::StringList, Kind::Array) => Some(self.texts(parent)?),
            (Special::JsonSchemaPropsOrArray | Special::JsonSchemaPropsOrStringArray, _) => {
                // Upstream takes anything else for nothing.
                self.json.skip()?;
                None
            }
            (Special::JsonSchemaPropsOrBool, _) => {
                self.json.skip()?;
                self.fatal(Error::value("boolean or JSON schema expected"));
                None
            }
            (Special::StringList, kind) => {
                self.mismatch(kind.word(), "[]string");
                self.json.skip()?;
                None
            }
            (Special::Quantity, kind) => {
                self.json.skip()?;
                let opening = if kind == Kind::Bool { "t" } else { "{" };
                if let Err(error) = special::normal_text(special, opening) {
                    self.fatal(error);
                }
                None
            }
            (special, kind) => {
                self.json.skip()?;
                let wanted = match special {
                    Special::IntOrString => "int32",
                    _ => "string",
                };
                self.fatal_mismatch(kind.word(), wanted);
                None
            }
        })
    }

    fn texts(&mut self, parent: &'static Message) -> Result<Value> {
        const STRING: &Type = &Type::String;
        let mut items = Vec::new();
        self.elements(|d| {
            items.push(d.item(STRING, parent, None)?);
            Ok(())
        })?;
        Ok(Value::Array(items))
    }

    /// An element of bytes that are written as an array of numbers.
    fn byte(&mut self) -> Result<u8> {
        match self.json.peek()? {
            Kind::Null => self.json.null().map(|()| 0),
            Kind::Number => {
                let text = self.json.number()?;
                Ok(text.parse().unwrap_or_else(|_| {
                    self.mismatch(&format!("number {text}"), "uint8");
                    0
                }))
            }
            other => {
                self.mismatch(other.word(), "uint8");
                self.json.skip()?;
                Ok(0)
            }
        }
    }

    fn text(&mut self, special: Special, text: &str) -> Option<Value> {
        match special::normal_text(special, text) {
            Ok(text) => Some(Value::String(text.into_owned())),
            Err(error) => {
                self.fatal(error);
                None
            }
        }
    }

    fn schema(&mut self, msg: &'static Message) -> Result<Value> {
        let mut members = Map::new();
        self.members(msg, &mut members)?;
        Ok(Value::Object(members))
    }

    fn item_schema(&mut self, msg: &'static Message) -> Result<Value> {
        match self.json.peek()? {
            Kind::Object => self.schema(msg),
            Kind::Null => {
                self.json.null()?;
                Ok(Value::Object(Map::new()))
            }
            other => {
                self.mismatch(other.word(), &go_name(&Type::Message(msg)));
                self.json.skip()?;
                Ok(Value::Null)
            }
        }
    }

    /// Upstream decodes these types by a decoder of their own, which is not strict and
    /// whose errors are fatal to the outer one.
    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let strict = std::mem::replace(&mut self.strict, false);
        let nested = self.nested;
        self.nested = nested.or(self.structs.last().copied());
        let done = f(self);
        self.nested = nested;
        self.strict = strict;
        done
    }
}

enum Step<'k> {
    Key(&'k str),
    Index(usize),
}
