//! What clap does not know of Go's flags: lists and maps grow when they are given again, and an
//! empty path or address is none. The command line is rewritten so that clap sees each such flag once.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Arg, Command, Id};

use super::{CommaList, StringMap};
use crate::features::FeatureGates;

/// One flag and its value, or whatever else a word is.
struct Piece {
    flag: Option<Id>,
    words: Vec<OsString>,
}

/// The command line with the values of repeated lists and maps put together, and without empty
/// paths and addresses.
pub(super) fn gather(command: &Command, args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args;
    let mut pieces: Vec<Piece> = Vec::new();
    while let Some(word) = args.next() {
        if word == "--" {
            let words = std::iter::once(word).chain(args.by_ref()).collect();
            pieces.push(Piece { flag: None, words });
            break;
        }
        let Some((arg, value)) = flag(command, &word) else {
            let words = vec![word];
            pieces.push(Piece { flag: None, words });
            continue;
        };
        // What follows is the value, whatever it looks like.
        let next = match value.is_none() && takes_next(arg) {
            true => args.next(),
            false => None,
        };
        let value = value.as_ref().or(next.as_ref());
        let id = Some(arg.get_id().clone());
        let before = pieces.iter().position(|piece| piece.flag == id);
        match (value, before) {
            (Some(value), Some(at)) if grows(arg) => append(&mut pieces[at].words, value),
            (Some(value), _) if is_path(arg) && value.is_empty() => {
                pieces.retain(|piece| piece.flag != id);
            }
            // Said of an address, it changes nothing, not even what was said before.
            (Some(value), _) if is_address(arg) && value.is_empty() => {}
            _ => pieces.push(Piece {
                flag: id,
                words: std::iter::once(word).chain(next).collect(),
            }),
        }
    }
    pieces.into_iter().flat_map(|piece| piece.words).collect()
}

/// The flag that a word names, and the value behind its equals sign.
fn flag<'a>(command: &'a Command, word: &OsStr) -> Option<(&'a Arg, Option<OsString>)> {
    let text = word.to_str()?;
    if let Some(long) = text.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.into())),
            None => (long, None),
        };
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(name))?;
        return Some((arg, value));
    }
    // `-v 3`; whatever has its value in the same word is left as it is.
    let mut letters = text.strip_prefix('-')?.chars();
    let (letter, None) = (letters.next()?, letters.next()) else {
        return None;
    };
    let arg = command
        .get_arguments()
        .find(|arg| arg.get_short() == Some(letter))?;
    Some((arg, None))
}

fn takes_next(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

fn grows(arg: &Arg) -> bool {
    let holds = arg.get_value_parser().type_id();
    holds == TypeId::of::<CommaList>()
        || holds == TypeId::of::<StringMap>()
        || holds == TypeId::of::<FeatureGates>()
}

fn is_address(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<IpAddr>()
}

fn is_path(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<PathBuf>()
}

/// Appends to a flag's value, which is the end of its last word.
fn append(words: &mut [OsString], value: &OsStr) {
    let alone = words.len() > 1;
    let Some(last) = words.last_mut().filter(|_| !value.is_empty()) else {
        return;
    };
    let is_empty = match alone {
        true => last.is_empty(),
        false => {
            let bytes = last.as_encoded_bytes();
            bytes.iter().position(|b| *b == b'=') == bytes.len().checked_sub(1)
        }
    };
    if !is_empty {
        last.push(",");
    }
    last.push(value);
}
