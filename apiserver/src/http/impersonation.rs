//! Impersonation: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*`. A request goes on as
//! somebody else if the requestor may be all of that.
//!
//! There are several ways to be allowed to. Of old, `impersonate` lets the requestor be somebody
//! in whatever they do. The constrained modes (KEP-5284) tell nodes, service accounts and other
//! users apart, and ask for two things: that the requestor may be somebody
//! (`impersonate:user-info`), and may do as somebody what the request does
//! (`impersonate-on:user-info:list`).
//!
//! What must not be here: authentication of the impersonator.

use component::features::FeatureGates;
use http::{HeaderMap, HeaderName};
use meta::{Status, validation as format};
use percent_encoding::percent_decode_str;

use super::authorization;
use crate::authn::service_account::{self, ALL_ACCOUNTS_GROUP, NODE_NAME};
use crate::authn::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, MASTERS, NODES, User};
use crate::authz::{Attributes, Authorizer};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Of so many groups or values it is first asked whether the requestor may have any.
const MANY: usize = 4;

/// Who the request asks to be, word for word. Takes the headers away, so that nothing behind
/// this can tell.
///
/// # Errors
///
/// 400 when something is asked for and no name.
pub fn wanted(headers: &mut HeaderMap) -> Result<Option<User>, Status> {
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let first = |name| headers.get(name).map(text).unwrap_or_default();
    let mut wanted = User {
        name: first(USER),
        uid: first(UID),
        groups: headers.get_all(GROUP).iter().map(text).collect(),
        ..User::default()
    };
    for (name, value) in headers.iter() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8();
            let key = key.map_or_else(|_| name.as_str()[EXTRA.len()..].to_owned(), Into::into);
            wanted.extra.entry(key).or_default().push(text(value));
        }
    }
    if wanted.name.is_empty() {
        if is_only_named(&wanted) {
            return Ok(None);
        }
        return Err(Status::bad_request(format!(
            "requested {wanted:?} without impersonating a user name"
        )));
    }
    let ours =
        |k: &&HeaderName| matches!(k.as_str(), USER | GROUP | UID) || k.as_str().starts_with(EXTRA);
    let ours: Vec<_> = headers.keys().filter(ours).cloned().collect();
    for key in ours {
        headers.remove(key);
    }
    Ok(Some(wanted))
}

/// A way to be allowed to be somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A service account is the node that its pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Anybody who is neither a node nor a service account.
    UserInfo,
    /// Anybody, for all that they may do.
    Legacy,
}

/// The modes there are, in the order in which they are tried.
#[derive(Debug)]
pub struct Modes(&'static [Mode]);

impl Modes {
    pub fn new(gates: &FeatureGates) -> Self {
        const ALL: &[Mode] = &[
            Mode::AssociatedNode,
            Mode::ArbitraryNode,
            Mode::ServiceAccount,
            Mode::UserInfo,
            Mode::Legacy,
        ];
        Self(if gates.enabled("ConstrainedImpersonation") {
            ALL
        } else {
            &[Mode::Legacy]
        })
    }

    /// The user to go on as, and why that is allowed. `request` is what is asked for, by the
    /// requestor.
    ///
    /// # Errors
    ///
    /// 403 of the first mode that might have allowed it.
    pub fn impersonate(
        &self,
        wanted: &User,
        request: &Attributes<'_>,
        authorizer: &dyn Authorizer,
    ) -> Result<(Mode, User), Status> {
        let mut refused = None;
        for mode in self
            .0
            .iter()
            .filter(|mode| mode.suits(wanted, request.user))
        {
            match mode.allow(wanted, request, authorizer) {
                Ok(()) => return Ok((*mode, mode.impersonated(wanted))),
                Err(status) => refused = refused.or(Some(status)),
            }
        }
        Err(refused.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "legacy",
        }
    }

    fn suits(self, wanted: &User, requestor: &User) -> bool {
        let node = node_name(&wanted.name);
        let account = service_account::split_username(&wanted.name);
        match self {
            Self::AssociatedNode => {
                is_only_named(wanted) && node.is_some() && node == node_of(requestor)
            }
            Self::ArbitraryNode => is_only_named(wanted) && node.is_some(),
            Self::ServiceAccount => is_only_named(wanted) && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }

    fn allow(
        self,
        wanted: &User,
        request: &Attributes<'_>,
        authorizer: &dyn Authorizer,
    ) -> Result<(), Status> {
        let anonymized;
        let requestor = match self {
            // What is asked must be the same for all nodes.
            Self::AssociatedNode => {
                anonymized = without_extra(request.user);
                &anonymized
            }
            _ => request.user,
        };
        if self == Self::Legacy {
            return Check::new(self, "impersonate", requestor, authorizer).all(wanted);
        }
        let on = format!("impersonate-on:{}:{}", self.name(), request.verb);
        let request = Attributes {
            user: requestor,
            verb: &on,
            ..*request
        };
        authorization::authorize(authorizer, &request)?;
        let verb = format!("impersonate:{}", self.name());
        Check::new(self, &verb, requestor, authorizer).all(wanted)
    }

    /// What is wanted, with the groups that come with it.
    fn impersonated(self, wanted: &User) -> User {
        let mut user = wanted.clone();
        if self != Self::Legacy && node_name(&user.name).is_some() {
            user.groups = vec![NODES.to_owned()];
        } else if let Some((namespace, _)) = service_account::split_username(&wanted.name)
            && user.groups.is_empty()
        {
            user.groups = vec![
                ALL_ACCOUNTS_GROUP.to_owned(),
                format!("{ALL_ACCOUNTS_GROUP}:{namespace}"),
            ];
        }
        let known = user.in_group(ALL_AUTHENTICATED) || user.in_group(ALL_UNAUTHENTICATED);
        if user.name == ANONYMOUS && !user.in_group(ALL_UNAUTHENTICATED) {
            user.groups.push(ALL_UNAUTHENTICATED.to_owned());
        } else if user.name != ANONYMOUS && !known {
            user.groups.push(ALL_AUTHENTICATED.to_owned());
        }
        user
    }
}

/// Whether the requestor may be somebody: each part of them is asked for.
struct Check<'a> {
    mode: Mode,
    asked: Attributes<'a>,
    authorizer: &'a dyn Authorizer,
}

impl<'a> Check<'a> {
    fn new(mode: Mode, verb: &'a str, requestor: &'a User, authorizer: &'a dyn Authorizer) -> Self {
        let asked = Attributes::of_resource(requestor, verb, AUTHENTICATION, "");
        Self {
            mode,
            asked,
            authorizer,
        }
    }

    fn all(&self, wanted: &User) -> Result<(), Status> {
        self.name(&wanted.name)?;
        if !wanted.uid.is_empty() {
            authorization::authorize(self.authorizer, &self.of("uids", "", &wanted.uid))?;
        }
        self.groups(&wanted.groups)?;
        self.extra(wanted)
    }

    fn of<'b>(&'b self, resource: &'b str, subresource: &'b str, name: &'b str) -> Attributes<'b> {
        Attributes {
            resource,
            subresource,
            name,
            ..self.asked
        }
    }

    /// Users and groups were of the core group before there was one of authentication.
    fn group(&self) -> &'static str {
        match self.mode {
            Mode::Legacy => "",
            _ => AUTHENTICATION,
        }
    }

    fn name(&self, name: &str) -> Result<(), Status> {
        let node = node_name(name).filter(|_| self.mode != Mode::Legacy);
        let (resource, namespace, name) = match (node, service_account::split_username(name)) {
            (Some(_), _) if self.mode == Mode::AssociatedNode => ("nodes", "", "*"),
            (Some(node), _) => ("nodes", "", node),
            (_, Some((namespace, name))) => ("serviceaccounts", namespace, name),
            _ => ("users", "", name),
        };
        let asked = Attributes {
            group: self.group(),
            namespace,
            ..self.of(resource, "", name)
        };
        authorization::authorize(self.authorizer, &asked)
    }

    fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let group = |name| Attributes {
            group: self.group(),
            ..self.of("groups", "", name)
        };
        if self.mode != Mode::Legacy {
            let refused = |name, why| Err(authorization::forbidden(&group(name), why));
            if groups.iter().any(String::is_empty) {
                return refused("", "impersonating the empty string group is not allowed");
            }
            if groups.iter().any(|group| group == MASTERS) {
                return refused(
                    MASTERS,
                    "impersonating the system:masters group is not allowed",
                );
            }
            if groups.len() >= MANY && self.may(&group("*")) {
                return Ok(());
            }
        }
        let mut groups = groups.iter();
        groups.try_for_each(|name| authorization::authorize(self.authorizer, &group(name)))
    }

    fn extra(&self, wanted: &User) -> Result<(), Status> {
        let extra = |key, value| self.of("userextras", key, value);
        if self.mode != Mode::Legacy {
            if let Some(why) = wrong_extra(wanted) {
                return Err(authorization::forbidden(&extra("", ""), &why));
            }
            let values: usize = wanted.extra.values().map(Vec::len).sum();
            if values >= MANY && self.may(&extra("*", "*")) {
                return Ok(());
            }
        }
        for (key, values) in &wanted.extra {
            for value in values {
                authorization::authorize(self.authorizer, &extra(key, value))?;
            }
        }
        Ok(())
    }

    fn may(&self, asked: &Attributes<'_>) -> bool {
        self.authorizer.allows(asked)
    }
}

fn is_only_named(user: &User) -> bool {
    user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty()
}

fn node_name(user: &str) -> Option<&str> {
    let name = user.strip_prefix("system:node:")?;
    format::dns1123_subdomain(name).is_empty().then_some(name)
}

/// The node that a service account's pod runs on.
fn node_of(requestor: &User) -> Option<&str> {
    service_account::split_username(&requestor.name)?;
    match requestor.extra.get(NODE_NAME)?.as_slice() {
        [node] => Some(node),
        _ => None,
    }
}

/// Of what is known of the requestor besides, only what sorts of things they are: the node and
/// the pod are others for each replica.
fn without_extra(requestor: &User) -> User {
    let keys = requestor.extra.keys().cloned().collect();
    let associated = "authentication.kubernetes.io/associated-node-keys".to_owned();
    User {
        extra: [(associated, keys)].into(),
        ..requestor.clone()
    }
}

/// Why nobody can have such extra values.
fn wrong_extra(wanted: &User) -> Option<String> {
    wanted.extra.iter().find_map(|(key, values)| {
        if key.is_empty() {
            return Some("impersonating the empty string key in extra is not allowed".to_owned());
        }
        if let Some((part, message)) = format::domain_prefixed_path(key).first() {
            return Some(format!(
                "impersonating an invalid key in extra is not allowed: \
                 extra.key: Invalid value: {part:?}: {message}"
            ));
        }
        if values.iter().any(String::is_empty) {
            let why = "impersonating the empty string value in extra is not allowed";
            return Some(why.to_owned());
        }
        (key.to_lowercase() != *key)
            .then(|| format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{Decision, Rules};

    /// What is allowed: verb, group, resource and name.
    struct Only(&'static [&'static str]);

    impl Authorizer for Only {
        fn authorize(&self, a: &Attributes<'_>) -> Decision {
            let asked = format!("{} {}/{} {}", a.verb, a.group, a.resource, a.name);
            match self.0.contains(&asked.as_str()) {
                true => Decision::Allow(String::new()),
                false => Decision::NoOpinion("no rule".into()),
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

    /// As whom pods may be listed, in which mode.
    fn list_pods(
        requestor: &User,
        asked: &[(&'static str, &str)],
        rules: &'static [&'static str],
    ) -> Result<(Mode, User), Status> {
        let wanted = wanted(&mut headers(asked)).unwrap().unwrap();
        let request = Attributes {
            user: requestor,
            verb: "list",
            namespace: "ns",
            group: "",
            resource: "pods",
            subresource: "",
            name: "",
            is_resource: true,
            path: "",
            field_selector: "",
        };
        Modes::new(&FeatureGates::default()).impersonate(&wanted, &request, &Only(rules))
    }

    #[test]
    fn headers_say_who_and_go() {
        let mut h = headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-extra-scopes%2fa", "x"),
            ("accept", "*/*"),
        ]);
        let user = wanted(&mut h).unwrap().unwrap();
        assert_eq!((user.name.as_str(), h.len()), ("jane", 1));
        assert_eq!(user.extra["scopes/a"], ["x"]);
        assert_eq!(wanted(&mut headers(&[])), Ok(None));
        let nameless = wanted(&mut headers(&[("impersonate-group", "admins")]));
        assert_eq!(nameless.unwrap_err().code, 400);
    }

    #[test]
    fn whoever_may_impersonate_may_do_all_as_the_other() {
        let rules = &["impersonate /users jane", "impersonate /groups admins"];
        let nobody = User::default();
        let asked = [
            ("impersonate-user", "jane"),
            ("impersonate-group", "admins"),
        ];
        let (mode, user) = list_pods(&nobody, &asked, rules).unwrap();
        assert_eq!(mode, Mode::Legacy);
        assert_eq!(user.groups, ["admins", ALL_AUTHENTICATED]);
        let refused = list_pods(&nobody, &asked, &rules[..1]).unwrap_err();
        assert_eq!(refused.code, 403);
    }

    #[test]
    fn service_accounts_bring_their_groups() {
        let asked = [("impersonate-user", "system:serviceaccount:ns:bot")];
        let rules = &["impersonate /serviceaccounts bot"];
        let (_, user) = list_pods(&User::default(), &asked, rules).unwrap();
        let groups = [
            "system:serviceaccounts",
            "system:serviceaccounts:ns",
            ALL_AUTHENTICATED,
        ];
        assert_eq!(user.groups, groups);
    }

    #[test]
    fn constrained_impersonation_asks_for_the_deed_too() {
        const RULES: &[&str] = &[
            "impersonate:user-info authentication.k8s.io/users jane",
            "impersonate-on:user-info:list /pods ",
        ];
        let asked = [("impersonate-user", "jane")];
        let nobody = User::default();
        let (mode, user) = list_pods(&nobody, &asked, RULES).unwrap();
        assert_eq!((mode, user.name.as_str()), (Mode::UserInfo, "jane"));
        for rules in [&RULES[..1], &RULES[1..]] {
            let refused = list_pods(&nobody, &asked, rules).unwrap_err();
            assert!(
                refused.message.contains("impersonate"),
                "{}",
                refused.message
            );
        }
        let masters = [("impersonate-user", "jane"), ("impersonate-group", MASTERS)];
        let refused = list_pods(&nobody, &masters, RULES).unwrap_err();
        assert!(
            refused
                .message
                .contains("system:masters group is not allowed")
        );
    }

    #[test]
    fn a_service_account_may_be_its_own_node() {
        const RULES: &[&str] = &[
            "impersonate:associated-node authentication.k8s.io/nodes *",
            "impersonate-on:associated-node:list /pods ",
        ];
        let agent = |node: &str| User {
            name: "system:serviceaccount:ns:agent".into(),
            extra: [(NODE_NAME.to_owned(), vec![node.to_owned()])].into(),
            ..User::default()
        };
        let asked = [("impersonate-user", "system:node:n1")];
        let (mode, user) = list_pods(&agent("n1"), &asked, RULES).unwrap();
        assert_eq!(mode, Mode::AssociatedNode);
        assert_eq!(user.groups, [NODES, ALL_AUTHENTICATED]);
        assert!(list_pods(&agent("n2"), &asked, RULES).is_err());
    }
}
