//! Impersonation: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*`. Each of them is
//! authorized on its own before the request goes on as somebody else.
//!
//! What must not be here: authentication of the impersonator.

use std::collections::BTreeMap;

use http::HeaderMap;
use meta::Status;
use percent_encoding::percent_decode_str;

use super::authorization;
use crate::authn::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, User};
use crate::authz::{Attributes, Authorizer, Decision};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// One thing that the requestor wants to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ask {
    ServiceAccount { namespace: String, name: String },
    User(String),
    Group(String),
    Extra { key: String, value: String },
    Uid(String),
}

/// Whether the request asks to be somebody else's.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    [USER, GROUP, UID]
        .iter()
        .any(|key| headers.contains_key(*key))
        || headers.keys().any(|key| key.as_str().starts_with(EXTRA))
}

/// The user to go on as; `None` when the request asks for no impersonation. Takes the
/// headers away.
pub fn impersonate(
    headers: &mut HeaderMap,
    requestor: &User,
    authorizer: &dyn Authorizer,
) -> Result<Option<User>, Status> {
    let asks = asks(headers)?;
    if asks.is_empty() {
        return Ok(None);
    }
    let groups_given = asks.iter().any(|a| matches!(a, Ask::Group(_)));
    let mut user = User::default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for ask in asks {
        allow(&ask, requestor, authorizer)?;
        match ask {
            Ask::ServiceAccount { namespace, name } => {
                user.name = format!("system:serviceaccount:{namespace}:{name}");
                if !groups_given {
                    user.groups = vec![
                        "system:serviceaccounts".to_owned(),
                        format!("system:serviceaccounts:{namespace}"),
                    ];
                }
            }
            Ask::User(name) => user.name = name,
            Ask::Group(group) => user.groups.push(group),
            Ask::Extra { key, value } => extra.entry(key).or_default().push(value),
            Ask::Uid(uid) => user.uid = uid,
        }
    }
    user.extra = extra;
    if user.name == ANONYMOUS {
        if !user.in_group(ALL_UNAUTHENTICATED) {
            user.groups.push(ALL_UNAUTHENTICATED.to_owned());
        }
    } else if !user.in_group(ALL_AUTHENTICATED) && !user.in_group(ALL_UNAUTHENTICATED) {
        user.groups.push(ALL_AUTHENTICATED.to_owned());
    }
    let ours: Vec<_> = headers
        .keys()
        .filter(|k| matches!(k.as_str(), USER | GROUP | UID) || k.as_str().starts_with(EXTRA))
        .cloned()
        .collect();
    for key in ours {
        headers.remove(key);
    }
    Ok(Some(user))
}

fn asks(headers: &HeaderMap) -> Result<Vec<Ask>, Status> {
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let first = |name| {
        headers
            .get(name)
            .map(text)
            .filter(|v: &String| !v.is_empty())
    };
    let mut asks = Vec::new();
    let user = first(USER);
    if let Some(name) = &user {
        let account = name
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
            .filter(|(_, name)| !name.contains(':'));
        asks.push(match account {
            Some((namespace, name)) => Ask::ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            None => Ask::User(name.clone()),
        });
    }
    asks.extend(headers.get_all(GROUP).iter().map(|v| Ask::Group(text(v))));
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key)
                .decode_utf8()
                .map_or_else(|_| key.to_owned(), |k| k.into_owned());
            let value = text(value);
            asks.push(Ask::Extra { key, value });
        }
    }
    asks.extend(first(UID).map(Ask::Uid));
    if user.is_none() && !asks.is_empty() {
        return Err(Status::bad_request(format!(
            "requested {asks:?} without impersonating a user"
        )));
    }
    Ok(asks)
}

fn allow(ask: &Ask, requestor: &User, authorizer: &dyn Authorizer) -> Result<(), Status> {
    let base = Attributes {
        user: requestor,
        verb: "impersonate",
        namespace: "",
        group: "",
        resource: "",
        subresource: "",
        name: "",
        is_resource: true,
        path: "",
        field_selector: "",
    };
    let attributes = match ask {
        Ask::ServiceAccount { namespace, name } => Attributes {
            namespace,
            name,
            resource: "serviceaccounts",
            ..base
        },
        Ask::User(name) => Attributes {
            name,
            resource: "users",
            ..base
        },
        Ask::Group(name) => Attributes {
            name,
            resource: "groups",
            ..base
        },
        Ask::Extra { key, value } => Attributes {
            name: value,
            group: AUTHENTICATION,
            resource: "userextras",
            subresource: key,
            ..base
        },
        Ask::Uid(uid) => Attributes {
            name: uid,
            group: AUTHENTICATION,
            resource: "uids",
            ..base
        },
    };
    match authorizer.authorize(&attributes) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) => Err(authorization::forbidden(&attributes, &reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Rules;

    struct Only(&'static [&'static str]);

    impl Authorizer for Only {
        fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
            assert_eq!(attributes.verb, "impersonate");
            if self.0.contains(&attributes.resource) {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion("no rule".into())
            }
        }

        fn rules_for(&self, _: &User, _: &str) -> Rules {
            Rules::default()
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (k, v) in pairs {
            headers.append(*k, v.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_user_becomes_another() {
        let mut h = headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-extra-scopes%2fa", "x"),
            ("accept", "*/*"),
        ]);
        let user = impersonate(&mut h, &User::default(), &Only(&["users", "userextras"]))
            .unwrap()
            .unwrap();
        assert_eq!(user.name, "jane");
        assert_eq!(user.groups, [ALL_AUTHENTICATED]);
        assert_eq!(user.extra["scopes/a"], ["x"]);
        assert_eq!(h.len(), 1);
    }

    #[test]
    fn service_accounts_bring_their_groups() {
        let mut h = headers(&[("impersonate-user", "system:serviceaccount:ns:bot")]);
        let user = impersonate(&mut h, &User::default(), &Only(&["serviceaccounts"]))
            .unwrap()
            .unwrap();
        assert_eq!(
            user.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:ns",
                ALL_AUTHENTICATED
            ]
        );
    }

    #[test]
    fn every_part_is_authorized() {
        let mut h = headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "admins"),
        ]);
        let err = impersonate(&mut h, &User::default(), &Only(&["users"])).unwrap_err();
        assert_eq!(err.code, 403);
        let mut h = headers(&[("impersonate-group", "admins")]);
        assert_eq!(
            impersonate(&mut h, &User::default(), &Only(&["groups"]))
                .unwrap_err()
                .code,
            400
        );
        assert_eq!(
            impersonate(&mut headers(&[]), &User::default(), &Only(&[])),
            Ok(None)
        );
    }
}
