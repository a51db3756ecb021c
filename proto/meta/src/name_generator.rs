//! Names out of `metadata.generateName`.

/// The alphabet of generated suffixes: no vowels, so that no words come up by chance.
pub const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Generated names never exceed this many bytes; a longer base is cut.
pub const MAX_NAME_LENGTH: usize = 63;
const SUFFIX_LENGTH: usize = 5;

/// `base` with a suffix of five characters. `random` gives uniformly distributed bits; it is
/// called until five characters are found.
pub fn generate_name(base: &str, random: impl FnMut() -> u64) -> String {
    let mut end = base.len().min(MAX_NAME_LENGTH - SUFFIX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_string(SUFFIX_LENGTH, random))
}

/// `length` characters of [`ALPHABET`], each equally likely.
pub fn random_string(length: usize, mut random: impl FnMut() -> u64) -> String {
    const PER_CALL: u32 = 12;
    let mut out = String::with_capacity(length);
    while out.len() < length {
        let bits = random();
        for i in 0..PER_CALL {
            // Five bits give 32 values; those without a character are thrown away, not folded.
            let index = (bits >> (5 * i)) as usize & 0x1f;
            if let Some(c) = ALPHABET.get(index).filter(|_| out.len() < length) {
                out.push(char::from(*c));
            }
        }
    }
    out
}

/// Maps the characters of a hash's text to [`ALPHABET`], as upstream does for pod template hashes.
pub fn safe_encode(s: &str) -> String {
    s.chars()
        .map(|c| char::from(ALPHABET[c as usize % ALPHABET.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_use_the_alphabet() {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state
        };
        for _ in 0..100 {
            let name = generate_name("web-", &mut next);
            let suffix = name.strip_prefix("web-").unwrap();
            assert_eq!(suffix.len(), 5);
            assert!(suffix.bytes().all(|b| ALPHABET.contains(&b)), "{name}");
        }
    }

    #[test]
    fn long_bases_are_cut() {
        assert_eq!(
            generate_name(&"a".repeat(80), || 0),
            "a".repeat(58) + "bbbbb"
        );
        assert_eq!(
            generate_name(&("a".repeat(57) + "é"), || 0),
            "a".repeat(57) + "bbbbb"
        );
    }

    #[test]
    fn all_ones_are_rejected_not_folded() {
        let mut calls = 0;
        let out = random_string(1, || {
            calls += 1;
            if calls == 1 { u64::MAX } else { 1 }
        });
        assert_eq!((out.as_str(), calls), ("c", 2));
    }

    #[test]
    fn encodes_hashes() {
        assert_eq!(safe_encode("01a"), "45v");
    }
}
