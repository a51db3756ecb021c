//! What the user may do: RBAC and the Node authorizer over the watch cache's view.
//!
//! [`build`] joins the modes of `--authorization-mode`; one file per mode.
//! What must not be here: who the user is (`authn/`), changing objects (`admission/`).

pub mod bootstrap;
mod modes;
pub mod node;
pub mod rbac;

pub use modes::{Authz, Mode, build};
pub use node::graph_actions;

use crate::authn::User;

/// What is asked of an authorizer (`authorizer.Attributes`).
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    /// Empty strings where a part is absent, as upstream has it.
    pub namespace: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    /// False for a path that names no resource; then `path` decides.
    pub is_resource: bool,
    pub path: &'a str,
    /// The request's `fieldSelector`, as sent, of list, watch and deletecollection: a node
    /// may list the pods that are its own.
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// May the user do this with the whole resource, in all namespaces?
    pub fn of_resource(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self {
            user,
            verb,
            namespace: "",
            group,
            resource,
            subresource: "",
            name: "",
            is_resource: true,
            path: "",
            field_selector: "",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// With the rule that allowed it, for audit.
    Allow(String),
    /// No rule of this authorizer matches.
    NoOpinion(String),
}

/// Decides in memory: no I/O, so it is synchronous.
pub trait Authorizer: Send + Sync + 'static {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        matches!(self.authorize(attributes), Decision::Allow(_))
    }

    /// The rules that apply to a user in a namespace, for `SelfSubjectRulesReview`
    /// and RBAC's escalation check.
    fn rules_for(&self, user: &User, namespace: &str) -> Rules;
}

/// Resource and non-resource rules, as `SelfSubjectRulesReview` reports them.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub resource: Vec<k8s_openapi::api::authorization::v1::ResourceRule>,
    pub non_resource: Vec<k8s_openapi::api::authorization::v1::NonResourceRule>,
    /// Some of the user's rules could not be read.
    pub incomplete: bool,
    pub evaluation_error: Option<String>,
}

/// Whether the user may `approve`, `sign` or `attest` for the signer, or for all signers of its
/// domain.
pub fn may_for_signer(authorizer: &dyn Authorizer, user: &User, verb: &str, signer: &str) -> bool {
    let ask = |name: &str| {
        let any = Attributes::of_resource(user, verb, "certificates.k8s.io", "signers");
        authorizer.allows(&Attributes { name, ..any })
    };
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    ask(signer) || ask(&format!("{domain}/*"))
}
