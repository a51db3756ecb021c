//! Users that a front proxy vouches for: its certificate is of the request-header CA and
//! has an allowed name, then its headers are believed.
//!
//! What must not be here: impersonation (`http/`), which any permitted user may do.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::x509::CaBundle;
use super::{AuthenticationError, Clock, Credentials, User};

/// `--requestheader-*`.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    /// Empty: any certificate of the CA.
    pub allowed_names: Vec<String>,
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl Headers {
    /// What aggregated API servers are told and upstream always strips.
    pub fn standard() -> Self {
        Self {
            allowed_names: Vec::new(),
            username: vec!["X-Remote-User".into()],
            uid: vec!["X-Remote-Uid".into()],
            group: vec!["X-Remote-Group".into()],
            extra_prefixes: vec!["X-Remote-Extra-".into()],
        }
    }

    /// Removes every header that could be taken for a proxy's word.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for name in self.username.iter().chain(&self.uid).chain(&self.group) {
            headers.remove(name.as_str());
        }
        let extra: Vec<HeaderName> = headers
            .keys()
            .filter(|name| {
                self.extra_prefixes
                    .iter()
                    .any(|prefix| strip_prefix(name.as_str(), prefix).is_some())
            })
            .cloned()
            .collect();
        for name in extra {
            headers.remove(name);
        }
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[String]| {
            names
                .iter()
                .filter_map(|n| headers.get(n.as_str()))
                .map(text)
                .find(|v| !v.is_empty())
        };
        let mut user = User {
            name: first(&self.username)?,
            uid: first(&self.uid).unwrap_or_default(),
            groups: self
                .group
                .iter()
                .flat_map(|n| headers.get_all(n.as_str()))
                .map(text)
                .filter(|g| !g.is_empty())
                .collect(),
            ..User::default()
        };
        for prefix in &self.extra_prefixes {
            for (name, value) in headers {
                if let Some(key) = strip_prefix(name.as_str(), prefix) {
                    let key = percent_encoding::percent_decode_str(key)
                        .decode_utf8()
                        .map_or_else(|_| key.to_owned(), |k| k.into_owned());
                    user.extra.entry(key).or_default().push(text(value));
                }
            }
        }
        Some(user)
    }
}

fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Header names are lower case in memory, prefixes as the operator wrote them.
fn strip_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let head = name.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix)
        .then(|| &name[prefix.len()..])
}

pub struct RequestHeader {
    pub ca: Arc<CaBundle>,
    pub headers: Headers,
}

impl RequestHeader {
    /// `None` when there is no certificate or no user header; an error when there are both
    /// and the certificate may not vouch.
    pub fn authenticate(
        &self,
        credentials: Credentials<'_>,
        clock: &Clock,
    ) -> Result<Option<User>, AuthenticationError> {
        if credentials.peer_certificates.is_empty() {
            return Ok(None);
        }
        // The headers first: nearly every request has none, and this is cheaper than asking
        // the wrong CA about its certificate.
        let Some(user) = self.headers.user(credentials.headers) else {
            return Ok(None);
        };
        let subject = self.ca.verify(credentials.peer_certificates, clock)?;
        if !self.headers.allowed_names.is_empty()
            && !self.headers.allowed_names.contains(&subject.common_name)
        {
            return Err(AuthenticationError(format!(
                "x509: subject with cn={} is not in the allowed list",
                subject.common_name
            )));
        }
        Ok(Some(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "ann"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.org%2fscope", "dev"),
            ("x-remote-extra-Scope", "ops"),
            ("accept", "*/*"),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn reads_user_groups_and_extra() {
        let user = Headers::standard().user(&headers()).unwrap();
        assert_eq!(user.name, "ann");
        assert_eq!(user.groups, ["a", "b"]);
        assert_eq!(user.extra["example.org/scope"], ["dev"]);
        assert_eq!(user.extra["scope"], ["ops"]);
    }

    #[test]
    fn strips_all_of_it_and_nothing_else() {
        let mut headers = headers();
        Headers::standard().strip(&mut headers);
        assert_eq!(
            headers.keys().map(|k| k.as_str()).collect::<Vec<_>>(),
            ["accept"]
        );
    }
}
