//! The hash that tells whether a running container still is what its pod asks for. It must equal
//! upstream's bit for bit: a kubelet that computed another one would restart every container of a
//! node it takes over.

use k8s_openapi::api::core::v1::Container;

/// Only `image` and `name` count, as they are all of a container that may make it another one.
///
/// Upstream hashes (FNV-1a, 32 bits) not the JSON of these two but Go's dump of that JSON's bytes,
/// as decimals between brackets.
pub fn container(container: &Container) -> u64 {
    let json = serde_json::json!({
        "image": container.image.as_deref().unwrap_or_default(),
        "name": container.name,
    })
    .to_string();
    let mut dump = String::with_capacity(json.len() * 4 + 16);
    dump.push_str("([]uint8)[");
    for (i, byte) in json.bytes().enumerate() {
        if i > 0 {
            dump.push(' ');
        }
        dump.push_str(&byte.to_string());
    }
    dump.push(']');
    u64::from(fnv1a_32(dump.as_bytes()))
}

/// FNV-1a with 32 bits.
pub fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_upstreams() {
        let c = Container {
            name: "test_container".into(),
            image: Some("foo/image:v1".into()),
            command: Some(vec!["/bin/testcmd".into()]),
            ..Default::default()
        };
        assert_eq!(container(&c), 0x8e45_cbd0);
    }
}
