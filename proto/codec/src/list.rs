//! LIST bodies from items that are already encoded, and back, without looking into the
//! items.
//!
//! Every list is `{1: metadata, 2: [items]}` in protobuf. In JSON the items of a list
//! carry no `kind` and `apiVersion`.

use crate::envelope;
use crate::error::{Error, Result};
use crate::json::write;
use crate::wire::{self, LEN, Reader, VARINT, varint_len};

/// `metav1.ListMeta`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListMeta<'a> {
    pub resource_version: &'a str,
    /// Where the next page starts; empty on the last one.
    pub continue_token: &'a str,
    /// How many items the following pages have, if that is known.
    pub remaining_item_count: Option<i64>,
}

impl<'a> ListMeta<'a> {
    fn decode(raw: &'a [u8]) -> Result<Self> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| not_utf8());
        let mut meta = ListMeta::default();
        let mut r = Reader::new(raw);
        while !r.done() {
            match r.tag()? {
                (2, LEN) => meta.resource_version = text(r.bytes()?)?,
                (3, LEN) => meta.continue_token = text(r.bytes()?)?,
                (4, VARINT) => meta.remaining_item_count = Some(r.varint()? as i64),
                (_, wire) => r.skip(wire)?,
            }
        }
        Ok(meta)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.continue_token.len());
        // selfLink, which is gone but still written.
        wire::put_bytes(&mut out, 1, b"");
        wire::put_bytes(&mut out, 2, self.resource_version.as_bytes());
        wire::put_bytes(&mut out, 3, self.continue_token.as_bytes());
        if let Some(count) = self.remaining_item_count {
            wire::put_int(&mut out, 4, count as u64);
        }
        out
    }

    fn json(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(b'{');
        for (name, text) in [
            ("resourceVersion", self.resource_version),
            ("continue", self.continue_token),
        ] {
            if !text.is_empty() {
                member(out, start + 1, name);
                write::string(out, text.as_bytes());
            }
        }
        if let Some(count) = self.remaining_item_count {
            member(out, start + 1, "remainingItemCount");
            write::int(out, count);
        }
        out.push(b'}');
    }
}

fn not_utf8() -> Error {
    Error::value("list metadata is no UTF-8")
}

fn member(out: &mut Vec<u8>, start: usize, name: &str) {
    if out.len() > start {
        out.push(b',');
    }
    write::string(out, name.as_bytes());
    out.push(b':');
}

/// A list message, opened.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    pub meta: ListMeta<'a>,
    raw: &'a [u8],
}

impl<'a> List<'a> {
    /// Opens a list's message without copying. Errors in the items' framing come up when
    /// they are iterated.
    pub fn decode(raw: &'a [u8]) -> Result<Self> {
        let mut meta = ListMeta::default();
        let mut r = Reader::new(raw);
        while !r.done() {
            match r.tag()? {
                (1, LEN) => {
                    meta = ListMeta::decode(r.bytes()?)?;
                    break;
                }
                (_, wire) => r.skip(wire)?,
            }
        }
        Ok(List { meta, raw })
    }

    /// Each item's message.
    pub fn items(&self) -> impl Iterator<Item = Result<&'a [u8]>> + use<'a> {
        crate::special::repeated(self.raw, 2)
    }
}

/// What precedes the items in a protobuf list whose items have these lengths, envelope
/// included. Each item follows as [`proto_item`] and its message; [`envelope::footer`]
/// ends the body.
pub fn proto_head(
    api_version: &str,
    kind: &str,
    meta: &ListMeta,
    items: impl Iterator<Item = usize>,
    out: &mut Vec<u8>,
) {
    let meta = meta.encode();
    let field = |len: usize| 1 + varint_len(len as u64) + len;
    let total = field(meta.len()) + items.map(field).sum::<usize>();
    envelope::header(api_version, kind, total, out);
    wire::put_bytes(out, 1, &meta);
}

/// What precedes an item's message of `len` bytes.
pub fn proto_item(len: usize, out: &mut Vec<u8>) {
    wire::put_tag(out, 2, LEN);
    wire::put_varint(out, len as u64);
}

/// A whole protobuf list, envelope included.
pub fn proto<'a>(
    api_version: &str,
    kind: &str,
    meta: &ListMeta,
    items: impl Iterator<Item = &'a [u8]> + Clone,
    out: &mut Vec<u8>,
) {
    out.reserve(items.clone().map(|item| item.len() + 5).sum::<usize>() + 128);
    let lens = items.clone().map(<[u8]>::len);
    proto_head(api_version, kind, meta, lens, out);
    for item in items {
        proto_item(item.len(), out);
        out.extend_from_slice(item);
    }
    envelope::footer(out);
}

/// What precedes the items in a JSON list. The items follow, separated by commas, as
/// [`crate::transcode::proto_to_json`] writes them without type metadata; [`JSON_TAIL`]
/// ends the body.
pub fn json_head(api_version: &str, kind: &str, meta: &ListMeta, out: &mut Vec<u8>) {
    let start = out.len() + 1;
    out.push(b'{');
    for (name, text) in [("kind", kind), ("apiVersion", api_version)] {
        if !text.is_empty() {
            member(out, start, name);
            write::string(out, text.as_bytes());
        }
    }
    member(out, start, "metadata");
    meta.json(out);
    out.extend_from_slice(b",\"items\":[");
}

/// What ends a JSON list, including the newline that ends every JSON body.
pub const JSON_TAIL: &[u8] = b"]}\n";

#[cfg(test)]
mod tests {
    use super::*;

    const META: ListMeta<'_> = ListMeta {
        resource_version: "7",
        continue_token: "a<b",
        remaining_item_count: Some(3),
    };

    #[test]
    fn json_lists_are_upstream_s() {
        let mut out = Vec::new();
        json_head("v1", "PodList", &META, &mut out);
        out.extend_from_slice(JSON_TAIL);
        let want = "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"7\",\"continue\":\"a\\u003cb\",\"remainingItemCount\":3},\"items\":[]}\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
        let mut out = Vec::new();
        ListMeta::default().json(&mut out);
        assert_eq!(out, b"{}");
    }

    #[test]
    fn protobuf_lists_are_what_a_tree_would_be() {
        let pod = schema::kind("", "v1", "Pod").unwrap();
        let list = schema::kind("", "v1", "PodList").unwrap();
        let tree = serde_json::json!({
            "metadata": {"resourceVersion": "7", "continue": "a<b", "remainingItemCount": 3},
            "items": [{"metadata": {"name": "a"}}, {}],
        });
        let mut want = Vec::new();
        crate::tree::to_proto(list, &tree, &mut want).unwrap();
        let want = envelope::encode("v1", "PodList", &want);
        let items: Vec<Vec<u8>> = tree["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| crate::serde_pb::to_vec(pod, item).unwrap())
            .collect();
        let mut out = Vec::new();
        proto(
            "v1",
            "PodList",
            &META,
            items.iter().map(|i| &i[..]),
            &mut out,
        );
        assert_eq!(out, want);

        let list = List::decode(envelope::decode(&out).unwrap().raw).unwrap();
        assert_eq!(list.meta, META);
        let back: Vec<_> = list.items().map(|i| i.unwrap().to_vec()).collect();
        assert_eq!(back, items);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(raw: Vec<u8>) {
            if let Ok(list) = List::decode(&raw) {
                list.items().for_each(drop);
            }
        }
    }
}
