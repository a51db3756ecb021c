//! As much of PEM (RFC 7468) and DER (X.690) as it takes to say whether a field holds what
//! it should. Nothing is verified here: those who trust a certificate parse it themselves.

use base64::prelude::{BASE64_STANDARD, Engine};

pub(crate) struct Block {
    pub label: String,
    pub has_headers: bool,
    pub body: Vec<u8>,
}

/// Every well-formed block of a text, in order.
pub(crate) fn blocks(text: &[u8]) -> impl Iterator<Item = Block> {
    let text = String::from_utf8_lossy(text).into_owned();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let begin = at + text[at..].find("-----BEGIN ")?;
            let start = begin + "-----BEGIN ".len();
            if begin > 0 && !text[..begin].ends_with('\n') {
                at = start;
                continue;
            }
            let (label, rest) = text[start..].split_once("-----")?;
            let end = format!("-----END {label}-----");
            at = start;
            let Some(length) = rest.find(&end) else {
                continue;
            };
            let inner = &rest[..length];
            let has_headers = inner.contains(':');
            let encoded: String = inner
                .lines()
                .filter(|line| !line.contains(':'))
                .flat_map(|line| line.chars().filter(|c| !c.is_whitespace()))
                .collect();
            let label = label.to_owned();
            if let Ok(body) = BASE64_STANDARD.decode(encoded) {
                at = start + label.len() + "-----".len() + length + end.len();
                return Some(Block {
                    label,
                    has_headers,
                    body,
                });
            }
        }
    })
}

pub(crate) fn first(text: &[u8]) -> Option<Block> {
    blocks(text).next()
}

/// One element of DER: its tag, its content and what follows it.
pub(crate) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        let length = bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

const SEQUENCE: u8 = 0x30;

/// Whether these bytes are one signed structure: a sequence of a sequence (what is signed),
/// the algorithm and the signature.
pub(crate) fn is_der(der: &[u8]) -> bool {
    let Some((SEQUENCE, content, [])) = element(der) else {
        return false;
    };
    matches!(element(content), Some((SEQUENCE, _, rest)) if !rest.is_empty())
}

/// Whether a certificate's basic constraints say `CA:TRUE`.
pub(crate) fn is_authority(der: &[u8]) -> bool {
    // id-ce-basicConstraints, 2.5.29.19, as the encoded identifier.
    const BASIC_CONSTRAINTS: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x13];
    const CRITICAL: [u8; 3] = [0x01, 0x01, 0xff];
    let Some(at) = der
        .windows(BASIC_CONSTRAINTS.len())
        .position(|window| window == BASIC_CONSTRAINTS)
    else {
        return false;
    };
    let rest = &der[at + BASIC_CONSTRAINTS.len()..];
    let rest = rest.strip_prefix(&CRITICAL).unwrap_or(rest);
    let Some((0x04, value, _)) = element(rest) else {
        return false;
    };
    matches!(element(value), Some((SEQUENCE, [0x01, 0x01, 0xff, ..], _)))
}
