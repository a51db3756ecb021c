//! Image names: `[host[:port]/]path[:tag][@digest]`. Pure.

/// Why a name is no image's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {name:?}: {why}")]
pub struct InvalidReference {
    name: String,
    why: &'static str,
}

const DEFAULT_HOST: &str = "docker.io";

/// A name taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Host and path with the defaults filled in: `docker.io/library/nginx`.
    pub repository: String,
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// # Errors
    /// When it is no name of an image.
    pub fn parse(name: &'a str) -> Result<Self, InvalidReference> {
        let invalid = |why| InvalidReference {
            name: name.to_owned(),
            why,
        };
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (name, None),
        };
        if let Some(digest) = digest {
            let hex = digest
                .split_once(':')
                .filter(|(algorithm, _)| !algorithm.is_empty())
                .map(|(_, hex)| hex);
            if !hex.is_some_and(|hex| hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
            {
                return Err(invalid("invalid digest"));
            }
        }
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let first = tag
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !first
                || tag.len() > 128
                || !tag
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            {
                return Err(invalid("invalid tag"));
            }
        }
        let (host, remainder) = match path.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => (DEFAULT_HOST, path),
        };
        let component = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b))
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        if !remainder.split('/').all(component) {
            let upper = remainder.bytes().any(|b| b.is_ascii_uppercase());
            return Err(invalid(if upper {
                "repository name must be lowercase"
            } else {
                "invalid reference format"
            }));
        }
        let library = if host == DEFAULT_HOST && !remainder.contains('/') {
            "library/"
        } else {
            ""
        };
        Ok(Self {
            repository: format!("{host}/{library}{remainder}"),
            tag,
            digest,
        })
    }

    /// The name with `:latest` where it has neither tag nor digest. What was left out stays so:
    /// the runtime has its own idea of default hosts.
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub fn with_default_tag(name: &str) -> Result<String, InvalidReference> {
        let parsed = Reference::parse(name)?;
        let complete = parsed.tag.is_some() || parsed.digest.is_some();
        Ok(if complete {
            name.to_owned()
        } else {
            format!("{name}:latest")
        })
    }
}

/// The name as it is written, without tag and digest; `None` where it is no image's.
pub fn without_tag(name: &str) -> Option<String> {
    let parsed = Reference::parse(name).ok()?;
    let mut rest = name;
    if let Some(digest) = parsed.digest {
        rest = rest.strip_suffix(digest)?.strip_suffix('@')?;
    }
    if let Some(tag) = parsed.tag {
        rest = rest.strip_suffix(tag)?.strip_suffix(':')?;
    }
    Some(rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_tags() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let all = format!("localhost:5000/a:1@{digest}");
        for (name, bare) in [(all.as_str(), "localhost:5000/a"), ("nginx", "nginx")] {
            assert_eq!(without_tag(name).as_deref(), Some(bare));
        }
        assert_eq!(without_tag("A B"), None);
    }

    #[test]
    fn names() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, repository, tagged) in [
            ("nginx", "docker.io/library/nginx", "nginx:latest"),
            ("nginx:1.2", "docker.io/library/nginx", "nginx:1.2"),
            ("me/app", "docker.io/me/app", "me/app:latest"),
            (
                "registry.k8s.io/pause:3.10",
                "registry.k8s.io/pause",
                "registry.k8s.io/pause:3.10",
            ),
            (
                "localhost:5000/a/b",
                "localhost:5000/a/b",
                "localhost:5000/a/b:latest",
            ),
        ] {
            assert_eq!(Reference::parse(name).unwrap().repository, repository);
            assert_eq!(Reference::with_default_tag(name).unwrap(), tagged);
        }
        let by_digest = format!("nginx@{digest}");
        assert_eq!(Reference::with_default_tag(&by_digest).unwrap(), by_digest);
        for name in [
            "",
            "UPPER",
            "a:",
            "a:b:c",
            "a@sha256:x",
            "/a",
            "a//b",
            "-a",
            "a b",
        ] {
            assert!(Reference::parse(name).is_err(), "{name:?}");
        }
    }
}
