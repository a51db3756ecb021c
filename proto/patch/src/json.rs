//! JSON patch (RFC 6902), with the leniencies that clients of Kubernetes know:
//! indexes may be negative (from the end), `replace` of a missing member adds it,
//! `test` of a missing member against `null` passes.

use codec::MAX_DEPTH;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The most operations that one patch may hold.
pub const MAX_OPERATIONS: usize = 10_000;

/// The bytes, as JSON, that all copies of one patch may add up to: copies of copies grow
/// without bound.
pub const MAX_COPIED: usize = 3 << 20;

/// What one patch may use up.
struct Bounds {
    /// Bytes that have been copied.
    copied: usize,
    /// No less than the document's depth: moves nest what was moved before, and whatever
    /// walks through a value does so by recursion.
    depth: usize,
}

impl Bounds {
    /// Something of at most this depth is now at `path`.
    fn placed(&mut self, doc: &Value, path: &str, depth: usize) -> Result<()> {
        self.depth = self.depth.max(parts(path) + depth);
        // What is moved is seldom the deepest there is, and to look costs as much as there
        // is: a patch has to name this many levels before the next look.
        if self.depth > 2 * MAX_DEPTH {
            self.look(doc)?;
        }
        Ok(())
    }

    /// Looks whether the document is as deep as it may be feared to be.
    fn look(&mut self, doc: &Value) -> Result<()> {
        if self.depth > MAX_DEPTH {
            self.depth = depth_of(doc);
        }
        if self.depth > MAX_DEPTH {
            return Err(inapplicable("exceeded max depth".into()));
        }
        Ok(())
    }
}

/// How many levels down a path leads.
fn parts(path: &str) -> usize {
    path.bytes().filter(|b| *b == b'/').count()
}

/// The levels of arrays and objects.
fn depth_of(value: &Value) -> usize {
    let mut deepest = 0;
    let mut left = vec![(value, 1)];
    while let Some((value, depth)) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items.iter().map(|v| (v, depth + 1))),
            Value::Object(members) => left.extend(members.values().map(|v| (v, depth + 1))),
            _ => continue,
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Applies the operations in order. `doc` is left half-changed after an error.
pub fn apply(doc: &mut Value, patch: &Value) -> Result<()> {
    let Value::Array(operations) = patch else {
        return Err(Error::Malformed("a JSON patch must be an array".into()));
    };
    let nothing = Map::new();
    let operations = operations
        .iter()
        .map(|o| match o {
            Value::Object(o) => Ok(o),
            // Go reads it as an operation of which nothing is said.
            Value::Null => Ok(&nothing),
            _ => Err(Error::Malformed(
                "an operation of a JSON patch must be an object".into(),
            )),
        })
        .collect::<Result<Vec<_>>>()?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooManyOperations {
            allowed: MAX_OPERATIONS,
            got: operations.len(),
        });
    }
    let mut bounds = Bounds {
        copied: 0,
        depth: depth_of(doc),
    };
    for operation in operations {
        operate(doc, operation, &mut bounds)?;
    }
    bounds.look(doc)
}

fn operate(doc: &mut Value, operation: &Map<String, Value>, bounds: &mut Bounds) -> Result<()> {
    let kind = text(operation, "op").unwrap_or("unknown");
    let path = || {
        text(operation, "path")
            .ok_or_else(|| inapplicable(format!("{kind} operation failed to decode path")))
    };
    let from = || {
        text(operation, "from")
            .ok_or_else(|| inapplicable(format!("{kind} operation failed to decode from")))
    };
    let value = operation.get("value");
    match kind {
        "add" | "replace" => {
            let (path, value) = (path()?, value.cloned().unwrap_or_default());
            let depth = depth_of(&value);
            match kind {
                "add" => add(doc, path, value)?,
                _ => replace(doc, path, value)?,
            }
            bounds.placed(doc, path, depth)
        }
        "remove" => remove(doc, path()?).map(drop),
        "move" => {
            let (from, path) = (from()?, path()?);
            let moved = remove(doc, from)?;
            add(doc, path, moved)?;
            let depth = bounds.depth.saturating_sub(parts(from));
            bounds.placed(doc, path, depth)
        }
        "copy" => {
            let source = get(doc, from()?)?;
            bounds.copied += source.map_or(0, size);
            if bounds.copied > MAX_COPIED {
                return Err(inapplicable(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_COPIED}",
                    bounds.copied
                )));
            }
            let source = source.cloned().unwrap_or_default();
            let path = path()?;
            add(doc, path, source)?;
            let depth = bounds.depth.saturating_sub(parts(from()?));
            bounds.placed(doc, path, depth)
        }
        "test" => test(doc, path()?, value.unwrap_or(&Value::Null)),
        other => Err(inapplicable(format!("Unexpected kind: {other}"))),
    }
}

/// Bytes of a value as JSON.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("counting does not fail");
    count.0
}

fn text<'a>(operation: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    operation.get(key).and_then(Value::as_str)
}

fn inapplicable(message: String) -> Error {
    Error::Inapplicable(message)
}

/// Undoes RFC 6901's escapes.
fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// The array or object that holds a path's last part, and that part.
fn container<'a>(doc: &'a mut Value, path: &str) -> Result<(&'a mut Value, String)> {
    let missing = || inapplicable(format!("doc is missing path: \"{path}\""));
    let (parents, key) = path.rsplit_once('/').ok_or_else(missing)?;
    let mut at = doc;
    for part in parents.split('/').skip(1) {
        let part = unescape(part);
        at = match at {
            Value::Object(map) => map.get_mut(&part),
            Value::Array(items) => index(&part, items.len()).and_then(|i| items.get_mut(i)),
            _ => None,
        }
        .ok_or_else(missing)?;
    }
    match at {
        Value::Object(_) | Value::Array(_) => Ok((at, unescape(key))),
        _ => Err(missing()),
    }
}

/// An index below `len`, counted from the end when it is negative.
fn index(key: &str, len: usize) -> Option<usize> {
    let i: i64 = key.parse().ok()?;
    let i = if i < 0 { i + len as i64 } else { i };
    usize::try_from(i).ok().filter(|i| *i < len)
}

fn bad_index(key: &str) -> Error {
    inapplicable(format!("Unable to access invalid index: {key}"))
}

fn add(doc: &mut Value, path: &str, value: Value) -> Result<()> {
    match container(doc, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(items), key) if key == "-" => items.push(value),
        (Value::Array(items), key) => {
            let at = index(&key, items.len() + 1).ok_or_else(|| bad_index(&key))?;
            items.insert(at, value);
        }
        _ => unreachable!("container() returns objects and arrays"),
    }
    Ok(())
}

fn remove(doc: &mut Value, path: &str) -> Result<Value> {
    match container(doc, path)? {
        (Value::Object(map), key) => map
            .remove(&key)
            .ok_or_else(|| inapplicable(format!("Unable to remove nonexistent key: {key}"))),
        (Value::Array(items), key) => {
            let at = index(&key, items.len()).ok_or_else(|| bad_index(&key))?;
            Ok(items.remove(at))
        }
        _ => unreachable!("container() returns objects and arrays"),
    }
}

fn replace(doc: &mut Value, path: &str, value: Value) -> Result<()> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err(inapplicable(
                "replace operation value must be object or array".into(),
            ));
        }
        *doc = value;
        return Ok(());
    }
    match container(doc, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(items), key) => {
            let at = index(&key, items.len()).ok_or_else(|| bad_index(&key))?;
            items[at] = value;
        }
        _ => unreachable!("container() returns objects and arrays"),
    }
    Ok(())
}

/// The value at a path; `None` for a member that an existing object does not have.
fn get<'a>(doc: &'a mut Value, path: &str) -> Result<Option<&'a Value>> {
    match container(doc, path)? {
        (Value::Object(map), key) => Ok(map.get(&key)),
        (Value::Array(items), key) => {
            let at = index(&key, items.len()).ok_or_else(|| bad_index(&key))?;
            Ok(Some(&items[at]))
        }
        _ => unreachable!("container() returns objects and arrays"),
    }
}

fn test(doc: &mut Value, path: &str, wanted: &Value) -> Result<()> {
    let found = if path.is_empty() {
        Some(&*doc)
    } else {
        get(doc, path)?
    };
    if found.unwrap_or(&Value::Null) == wanted {
        Ok(())
    } else {
        Err(inapplicable(format!("testing value {path} failed")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the daemons' threads have them.
    fn on_a_deep_stack(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().stack_size(512 << 20);
        thread.spawn(test).unwrap().join().unwrap();
    }

    fn patched(mut doc: Value, patch: Value) -> Result<Value> {
        apply(&mut doc, &patch).map(|()| doc)
    }

    #[test]
    fn every_operation_applies() {
        let doc = json!({"a": {"b": [1, 2, 3]}, "k/~": "v"});
        let patch = json!([
            {"op": "test", "path": "/k~1~0", "value": "v"},
            {"op": "add", "path": "/a/b/1", "value": 9},
            {"op": "add", "path": "/a/b/-", "value": 10},
            {"op": "remove", "path": "/a/b/0"},
            {"op": "replace", "path": "/a/b/-1", "value": 11},
            {"op": "copy", "from": "/a/b/0", "path": "/c"},
            {"op": "move", "from": "/a", "path": "/d"},
            {"op": "replace", "path": "/new", "value": true},
            {"op": "test", "path": "/absent", "value": null},
        ]);
        assert_eq!(
            patched(doc, patch).unwrap(),
            json!({"c": 9, "d": {"b": [9, 2, 3, 11]}, "k/~": "v", "new": true})
        );
    }

    #[test]
    fn what_does_not_apply_is_refused() {
        for patch in [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/b"}]),
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            json!([{"op": "add", "path": "/l/5", "value": 1}]),
            json!([{"op": "add", "path": "", "value": {}}]),
            json!([{"op": "frobnicate", "path": "/a"}]),
            json!([{"path": "/a"}]),
            json!([null]),
        ] {
            let err = patched(json!({"a": 1, "l": []}), patch.clone()).unwrap_err();
            assert!(matches!(err, Error::Inapplicable(_)), "{patch}: {err}");
        }
    }

    #[test]
    fn malformed_and_oversized_patches_are_told_apart() {
        assert!(matches!(
            patched(json!({}), json!({"op": "add"})),
            Err(Error::Malformed(_))
        ));
        let many: Vec<_> = (0..=MAX_OPERATIONS)
            .map(|_| json!({"op": "test", "path": "", "value": {}}))
            .collect();
        assert_eq!(
            patched(json!({}), Value::Array(many))
                .unwrap_err()
                .to_string(),
            "The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
    }

    #[test]
    fn copies_of_copies_come_to_an_end() {
        let copy = json!({"op": "copy", "from": "/a", "path": "/a/b"});
        let copies = |count| Value::Array(vec![copy.clone(); count]);
        assert!(patched(json!({"a": {"x": "y"}}), copies(10)).is_ok());
        let error = patched(json!({"a": {"x": "y".repeat(1000)}}), copies(10_000)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exceeding the limit 3145728"), "{text}");
    }

    #[test]
    fn moves_do_not_nest_without_bound() {
        let moves = |rounds: usize| {
            let mut moves = vec![json!({"op": "add", "path": "/x", "value": {}})];
            for _ in 0..rounds {
                moves.push(json!({"op": "add", "path": "/y", "value": {}}));
                moves.push(json!({"op": "move", "from": "/x", "path": "/y/z"}));
                moves.push(json!({"op": "move", "from": "/y", "path": "/x"}));
            }
            Value::from(moves)
        };
        let mut doc = json!({});
        assert_eq!(apply(&mut doc, &moves(100)), Ok(()));
        assert_eq!(depth_of(&doc), 102);
        // As many levels as fit into a value and a path, several times over.
        let deep = |times: usize| {
            let levels = 4_000;
            let value: String = "[".repeat(levels) + &"]".repeat(levels);
            let value: Value = codec::decode::untyped(value.as_bytes()).unwrap();
            let mut moves = vec![json!({"op": "add", "path": "/x", "value": []})];
            for _ in 0..times {
                let to = format!("/y{}", "/0".repeat(levels - 1) + "/-");
                moves.push(json!({"op": "add", "path": "/y", "value": value}));
                moves.push(json!({"op": "move", "from": "/x", "path": to}));
                moves.push(json!({"op": "move", "from": "/y", "path": "/x"}));
            }
            Value::from(moves)
        };
        on_a_deep_stack(move || {
            let mut doc = json!({});
            assert_eq!(apply(&mut doc, &deep(2)), Ok(()));
            assert_eq!(depth_of(&doc), 8_002);
            for times in [3, 6, 20] {
                let refused = apply(&mut json!({}), &deep(times));
                assert_eq!(refused, Err(inapplicable("exceeded max depth".into())));
            }
        });
        // Going to and fro nests nothing.
        let mut there = vec![json!({"op": "add", "path": "/a", "value": {"b": {}}})];
        for _ in 0..2000 {
            there.push(json!({"op": "move", "from": "/a/b", "path": "/c"}));
            there.push(json!({"op": "move", "from": "/c", "path": "/a/b"}));
        }
        assert_eq!(apply(&mut json!({}), &Value::from(there)), Ok(()));
    }
}
