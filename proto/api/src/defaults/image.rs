//! How often an image is pulled when nobody says so: that depends on its tag, and so on how
//! references to images are read (the `distribution` project's grammar).

/// `Always` for the tag `latest`, also when neither tag nor digest is given. What is no reference
/// has no tag.
pub(super) fn pull_policy(image: &str) -> &'static str {
    match tag(image) {
        Some("latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// The tag of a reference: `latest` where there is neither tag nor digest; `None` where there is
/// a digest alone, or no reference.
fn tag(image: &str) -> Option<&str> {
    const ID: usize = 64;
    if image.len() == ID && image.bytes().all(is_lower_hex) {
        return None;
    }
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return None;
    }
    let (host, rest) = split_host(named);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    // The name without its tag, the registry included.
    const NAME_LIMIT: usize = 255;
    let name_length = named.len() - tag.map_or(0, |tag| tag.len() + 1);
    let good = name_length <= NAME_LIMIT
        && host.is_none_or(is_host)
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag);
    match (tag, digest) {
        _ if !good => None,
        (None, None) => Some("latest"),
        (tag, _) => tag,
    }
}

fn is_lower_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

/// The registry, where the first part can only be one.
fn split_host(named: &str) -> (Option<&str>, &str) {
    match named.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, named),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(_) => match host.split_once(']') {
            Some((address, rest)) => {
                let good = address.len() > 1
                    && address[1..]
                        .bytes()
                        .all(|b| b.is_ascii_hexdigit() || b == b':');
                let port = rest.strip_prefix(':');
                return good && (rest.is_empty() || port.is_some_and(is_port));
            }
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    port.is_none_or(is_port)
        && name.split('.').all(|label| {
            let edge = |c: char| c.is_ascii_alphanumeric();
            label.starts_with(edge)
                && label.ends_with(edge)
                && label.chars().all(|c| edge(c) || c == '-')
        })
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case words with one separator between two: `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(word)
        && component.ends_with(word)
        && component.split(word).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.chars().all(|c| c == '-')
        })
}

fn is_tag(tag: &str) -> bool {
    const MOST: usize = 128;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= MOST
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// One of the algorithms that images are named by, and as many digits as it has.
fn is_digest(digest: &str) -> bool {
    let Some((algorithm, digits)) = digest.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    digits.len() == length && digits.bytes().all(is_lower_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_goes_by_the_tag() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for latest in [
            "a",
            "a/b",
            "r.example:5000/a",
            "Up/a:latest",
            "a__b/c--d.e",
            "[::1]:5/a",
        ] {
            assert_eq!(pull_policy(latest), "Always", "{latest}");
        }
        let by_digest = format!("a@{digest}");
        let by_both = format!("a:1@{digest}");
        for other in ["a:1", "r.example/a:latest-1", &by_digest, &by_both] {
            assert_eq!(pull_policy(other), "IfNotPresent", "{other}");
        }
        assert_eq!(pull_policy(&format!("a:latest@{digest}")), "Always");
    }

    #[test]
    fn what_is_no_reference_has_no_tag() {
        let id = "0".repeat(64);
        for image in [
            "",
            "UPPER",
            "/x",
            "a/",
            "a:",
            "a b",
            "a..b/c",
            "a@sha256:0",
            &id,
            "-a.b/c",
        ] {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
