//! Looks fields up in stored bytes: all that are sought of a kind, in one walk.
//!
//! What must not be here: which fields those are, and what for.

/// The fields that are sought of a kind, as a tree of their protobuf numbers.
#[derive(Default)]
pub(super) struct Sought {
    root: Node,
    values: usize,
    marks: usize,
}

/// What a walk has found.
#[derive(Default)]
pub(super) struct Found {
    /// By the number that [`Sought::value`] gave.
    pub(super) values: Vec<Option<String>>,
    /// By the number that [`Sought::mark`] gave.
    pub(super) marks: Vec<bool>,
    /// A field that should always be given is not.
    pub(super) lacks: bool,
}

#[derive(Default)]
struct Node {
    number: u32,
    below: Vec<Node>,
    values: Vec<Value>,
    marks: Vec<Mark>,
    given: Option<Given>,
    /// The bits of the fields below that must be given wherever this is there.
    must: u64,
}

struct Value {
    index: usize,
    boolean: bool,
}

struct Mark {
    index: usize,
    /// The field is always written: it is there when it says something.
    text: bool,
}

struct Given {
    bit: u64,
    text: bool,
}

impl Sought {
    /// Asks for a scalar by the numbers that lead to it.
    pub(super) fn value(&mut self, numbers: &[u32], boolean: bool) -> usize {
        let index = self.values;
        self.values += 1;
        self.root.at(numbers).values.push(Value { index, boolean });
        index
    }

    /// Asks whether a field is there.
    pub(super) fn mark(&mut self, numbers: &[u32], text: bool) -> usize {
        let index = self.marks;
        self.marks += 1;
        self.root.at(numbers).marks.push(Mark { index, text });
        index
    }

    /// Expects a field wherever it has a place: in each item of a list.
    pub(super) fn given(&mut self, numbers: &[u32], text: bool) {
        let Some((last, parents)) = numbers.split_last() else {
            return;
        };
        let parent = self.root.at(parents);
        // No message has so many fields with defaults.
        let bit = 1 << parent.must.count_ones();
        parent.must |= bit;
        parent.at(&[*last]).given = Some(Given { bit, text });
    }

    /// # Errors
    ///
    /// When the bytes are no protobuf, or a text is no UTF-8.
    pub(super) fn look(&self, raw: &[u8]) -> Result<Found, String> {
        let mut found = Found {
            values: vec![None; self.values],
            marks: vec![false; self.marks],
            lacks: false,
        };
        self.root.walk(raw, &mut found)?;
        Ok(found)
    }
}

impl Node {
    fn at(&mut self, numbers: &[u32]) -> &mut Node {
        let Some((number, rest)) = numbers.split_first() else {
            return self;
        };
        let known = self.below.iter().position(|node| node.number == *number);
        let place = known.unwrap_or_else(|| {
            self.below.push(Node {
                number: *number,
                ..Node::default()
            });
            self.below.len() - 1
        });
        self.below[place].at(rest)
    }

    /// Looks at a message.
    fn walk(&self, message: &[u8], found: &mut Found) -> Result<(), String> {
        let mut given = 0;
        for field in wire::fields(message) {
            let (number, value) = field?;
            if let Some(node) = self.below.iter().find(|node| node.number == number) {
                given |= node.meet(&value, found)?;
            }
        }
        found.lacks |= given & self.must != self.must;
        Ok(())
    }

    /// Looks at a field; its bit, if it is given.
    fn meet(&self, value: &wire::Value<'_>, found: &mut Found) -> Result<u64, String> {
        let empty = matches!(value, wire::Value::Bytes([]));
        for mark in self.marks.iter().filter(|mark| !(mark.text && empty)) {
            found.marks[mark.index] = true;
        }
        for Value { index, boolean } in &self.values {
            let place = &mut found.values[*index];
            if place.is_none() {
                *place = match value {
                    wire::Value::Bytes(bytes) => Some(text(bytes)?),
                    wire::Value::Varint(v) if *boolean => Some((*v != 0).to_string()),
                    wire::Value::Varint(v) => Some((*v as i64).to_string()),
                    wire::Value::Fixed => None,
                };
            }
        }
        if let wire::Value::Bytes(bytes) = value
            && !self.below.is_empty()
        {
            self.walk(bytes, found)?;
        }
        let given = self.given.as_ref();
        Ok(given.filter(|g| !(g.text && empty)).map_or(0, |g| g.bit))
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name is no UTF-8".to_owned())
}

/// As much of protobuf's wire format as it takes to find a field.
mod wire {
    pub enum Value<'a> {
        Varint(u64),
        Bytes(&'a [u8]),
        Fixed,
    }

    const TRUNCATED: &str = "truncated protobuf";

    fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first().ok_or(TRUNCATED)?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("varint too long".to_owned())
    }

    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = bytes.split_at_checked(n).ok_or(TRUNCATED)?;
        *bytes = rest;
        Ok(taken)
    }

    fn next<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Value<'a>), String> {
        let tag = varint(bytes)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(bytes)?),
            1 => take(bytes, 8).map(|_| Value::Fixed)?,
            2 => {
                let n = usize::try_from(varint(bytes)?).map_err(|_| TRUNCATED)?;
                Value::Bytes(take(bytes, n)?)
            }
            5 => take(bytes, 4).map(|_| Value::Fixed)?,
            other => return Err(format!("illegal wire type {other}")),
        };
        Ok(((tag >> 3) as u32, value))
    }

    /// The fields of a message in the order in which they are written.
    pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), String>> {
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let field = next(&mut bytes);
            if field.is_err() {
                bytes = &[];
            }
            Some(field)
        })
    }
}
