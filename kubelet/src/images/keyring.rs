//! Which credentials fit an image: they are kept by the registry, or the part of it, that they are
//! for. Pure.

use std::collections::BTreeMap;

use grpc::cri::AuthConfig;

/// The object that credentials come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coordinates {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Whose credentials they are; the node's are everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Node,
    Secret(Coordinates),
    ServiceAccount(Coordinates),
}

/// What a registry is told.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: String,
    pub email: String,
}

impl std::fmt::Debug for Login {
    /// Never shows a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, …)", self.username)
    }
}

/// A login, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub login: Login,
    pub source: Source,
}

impl Credential {
    /// As the runtime takes it. It is not told whose server it is for, as by upstream.
    pub fn auth(&self) -> AuthConfig {
        AuthConfig {
            username: self.login.username.clone(),
            password: self.login.password.clone(),
            ..AuthConfig::default()
        }
    }
}

/// What stands for Docker Hub, whatever images are called.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Credentials by what they are for: `host[:port][/path]`, where parts of the host may have `*`.
#[derive(Debug, Default)]
pub struct Keyring(BTreeMap<String, Vec<Credential>>);

impl Keyring {
    /// `server` is as it stands in files of Docker: with or without scheme and `/v1/`.
    pub fn add(&mut self, server: &str, credential: Credential) {
        let bare = ["https://", "http://"]
            .iter()
            .find_map(|scheme| server.strip_prefix(scheme))
            .unwrap_or(server);
        let (host, path) = split(bare);
        let path = ["/v1/", "/v2/"]
            .iter()
            .find_map(|version| path.starts_with(version).then(|| &path[3..]))
            .unwrap_or(path);
        let path = if path == "/" { "" } else { path };
        self.0
            .entry(format!("{host}{path}"))
            .or_default()
            .push(credential);
    }

    /// Those that fit a repository (`host/path`), the most specific first.
    pub fn lookup(&self, repository: &str) -> Vec<Credential> {
        let fitting = self.0.iter().rev();
        let fitting = fitting.filter(|(key, _)| matches(key, repository));
        let found: Vec<_> = fitting.flat_map(|(_, all)| all).cloned().collect();
        if found.is_empty() && is_default_registry(repository) {
            return self.0.get(DEFAULT_REGISTRY).cloned().unwrap_or_default();
        }
        found
    }
}

fn is_default_registry(repository: &str) -> bool {
    match repository.split_once('/') {
        None => !repository.is_empty(),
        Some((host, _)) => {
            matches!(host, "docker.io" | DEFAULT_REGISTRY)
                || (!host.is_empty() && !host.contains(['.', ':']))
        }
    }
}

/// Host with port, and the path with its slash.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find('/').unwrap_or(text.len()))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, port),
        _ => (host, ""),
    }
}

/// Whether a pattern is for an image: the host fits part by part, the port is the same, and the
/// path begins as the pattern's.
pub fn matches(pattern: &str, image: &str) -> bool {
    let ((pattern, pattern_path), (host, path)) = (split(pattern), split(image));
    let ((pattern, pattern_port), (host, port)) = (split_port(pattern), split_port(host));
    let (patterns, parts): (Vec<_>, Vec<_>) =
        (pattern.split('.').collect(), host.split('.').collect());
    pattern_port == port
        && path.starts_with(pattern_path)
        && patterns.len() == parts.len()
        && patterns.iter().zip(&parts).all(|(p, part)| {
            let (p, part): (Vec<char>, Vec<char>) = (p.chars().collect(), part.chars().collect());
            glob(&p, &part)
        })
}

/// As a shell's: `*`, `?`, `[a-z]`, `[^a-z]`. A pattern that is none fits nothing.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (['*', rest @ ..], text) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        (['?', rest @ ..], [_, text @ ..]) => glob(rest, text),
        (['[', class @ ..], [c, text @ ..]) => {
            let Some(end) = class.iter().skip(1).position(|c| *c == ']') else {
                return false;
            };
            let (class, rest) = (&class[..=end], &class[end + 2..]);
            let (class, wanted) = match class {
                ['^', class @ ..] => (class, false),
                class => (class, true),
            };
            in_class(class, *c) == wanted && glob(rest, text)
        }
        (['\\', p, rest @ ..] | [p, rest @ ..], [c, text @ ..]) => p == c && glob(rest, text),
        (_, []) => false,
    }
}

fn in_class(class: &[char], c: char) -> bool {
    match class {
        [low, '-', high, rest @ ..] => (*low..=*high).contains(&c) || in_class(rest, c),
        [one, rest @ ..] => *one == c || in_class(rest, c),
        [] => false,
    }
}

/// Why a text is no pattern for images, in the words of Go's URLs.
///
/// # Errors
/// When it is none.
pub fn check_pattern(text: &str) -> Result<(), String> {
    let wrong = |why: String| Err(format!("parse {:?}: {why}", format!("https://{text}")));
    if text.chars().any(|c| c.is_ascii_control()) {
        return wrong("net/url: invalid control character in URL".into());
    }
    let (host, _) = split(text);
    if let Some(c) = host
        .chars()
        .find(|c| matches!(c, ' ' | '\\' | '^' | '`' | '{' | '|' | '}'))
    {
        return wrong(format!(
            "invalid character {:?} in host name",
            c.to_string()
        ));
    }
    let port = host.rfind(':').map_or("", |at| &host[at..]);
    if !host.ends_with(']') && !port.chars().skip(1).all(|c| c.is_ascii_digit()) {
        return wrong(format!("invalid port {port:?} after host"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(keyring: &Keyring, repository: &str) -> Vec<String> {
        let found = keyring.lookup(repository).into_iter();
        found.map(|c| c.login.username).collect()
    }

    fn keyring(entries: &[(&str, &str)]) -> Keyring {
        let mut keyring = Keyring::default();
        for (server, username) in entries {
            let login = Login {
                username: (*username).to_owned(),
                ..Login::default()
            };
            let source = Source::Node;
            keyring.add(server, Credential { login, source });
        }
        keyring
    }

    #[test]
    fn the_most_specific_first() {
        let keyring = keyring(&[
            ("https://index.docker.io/v1/", "hub"),
            ("*.example.com", "wild"),
            ("a.example.com/team", "team"),
            ("http://b.example.com:5000/v2/x", "port"),
        ]);
        assert_eq!(names(&keyring, "docker.io/library/nginx"), ["hub"]);
        assert_eq!(names(&keyring, "a.example.com/team/app"), ["team", "wild"]);
        assert_eq!(names(&keyring, "a.example.com/teamwork"), ["team", "wild"]);
        assert_eq!(names(&keyring, "b.example.com:5000/x/y"), ["port"]);
        assert!(names(&keyring, "b.example.com:5000/y").is_empty());
        assert!(names(&keyring, "b.c.example.com/x").is_empty());
    }

    #[test]
    fn patterns() {
        for (pattern, image, fits) in [
            (
                "*.dkr.ecr.*.amazonaws.com",
                "1.dkr.ecr.eu.amazonaws.com/x",
                true,
            ),
            ("*.*.io", "a.b.io", true),
            ("*.*.io", "b.io", false),
            ("a?c.io", "abc.io/x", true),
            ("reg[0-9].io", "reg7.io/x", true),
            ("reg[^0-9].io", "reg7.io/x", false),
            ("reg[0-9.io", "reg7.io/x", false),
            ("a.io:80", "a.io/x", false),
            ("a.io/b", "a.io/bc", true),
        ] {
            assert_eq!(matches(pattern, image), fits, "{pattern} {image}");
        }
        assert_eq!(check_pattern("*.a.io:5000/x"), Ok(()));
        let why = |text| check_pattern(text).unwrap_err();
        assert_eq!(
            why("a b"),
            r#"parse "https://a b": invalid character " " in host name"#
        );
        assert_eq!(
            why("a:x"),
            r#"parse "https://a:x": invalid port ":x" after host"#
        );
    }
}
