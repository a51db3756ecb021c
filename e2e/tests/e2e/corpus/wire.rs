//! Protobuf without a schema, to be compared and shown: the fields in their order,
//! nested as far as they can be read.

use std::fmt::Write as _;

/// What a field is by its look; both servers' are looked at alike.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Number(u64, u64),
    Text(u64, String),
    Bytes(u64, Vec<u8>),
    Message(u64, Vec<Field>),
}

/// The fields of a message; none if it is not one.
pub fn read(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = tag >> 3;
        if number == 0 {
            return None;
        }
        fields.push(match tag & 7 {
            0 => Field::Number(number, varint(&mut bytes)?),
            1 => Field::Bytes(number, take(&mut bytes, 8)?.to_vec()),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                delimited(number, take(&mut bytes, length)?)
            }
            5 => Field::Bytes(number, take(&mut bytes, 4)?.to_vec()),
            _ => return None,
        });
    }
    Some(fields)
}

fn delimited(number: u64, bytes: &[u8]) -> Field {
    let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    if bytes.iter().all(printable) {
        return Field::Text(number, String::from_utf8_lossy(bytes).into_owned());
    }
    match read(bytes) {
        Some(fields) => Field::Message(number, fields),
        None => Field::Bytes(number, bytes.to_vec()),
    }
}

/// The fields, one a line.
pub fn lines(fields: &[Field], indent: usize, out: &mut String) {
    for field in fields {
        let _ = match field {
            Field::Number(n, value) => writeln!(out, "{:indent$}{n}: {value}", ""),
            Field::Text(n, text) => writeln!(out, "{:indent$}{n}: {text:?}", ""),
            Field::Bytes(n, bytes) => writeln!(out, "{:indent$}{n}: {}", "", bytes.escape_ascii()),
            Field::Message(n, fields) => {
                let _ = writeln!(out, "{:indent$}{n}:", "");
                lines(fields, indent + 2, out);
                Ok(())
            }
        };
    }
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (head, tail) = bytes.split_at_checked(length)?;
    *bytes = tail;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}
