//! Kinds that are questions: a create is answered and nothing is stored.
//!
//! What must not be here: how the answer is found (`authn/`, `authz/`).

mod access;
mod rules;
mod selectors;
mod token;
mod who;

use std::sync::Arc;

pub use access::{AccessReviews, Scope};
pub use rules::RulesReviews;
pub use token::TokenReviews;
pub use who::SelfReviews;

use super::rest::Rest;
use super::special::Endpoint;
use crate::authn::Authenticator;
use crate::authz::Authorizer;

/// Every review by group, plural and subresource.
pub fn all(
    authenticator: &Arc<dyn Authenticator>,
    authorizer: &Arc<dyn Authorizer>,
) -> Vec<(Endpoint, Arc<dyn Rest>)> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    const AUTHORIZATION: &str = "authorization.k8s.io";
    let access = |scope| {
        Arc::new(AccessReviews {
            authorizer: authorizer.clone(),
            scope,
        }) as Arc<dyn Rest>
    };
    vec![
        (
            (AUTHENTICATION, "tokenreviews", ""),
            Arc::new(TokenReviews {
                authenticator: authenticator.clone(),
            }),
        ),
        (
            (AUTHENTICATION, "selfsubjectreviews", ""),
            Arc::new(SelfReviews),
        ),
        (
            (AUTHORIZATION, "subjectaccessreviews", ""),
            access(Scope::Cluster),
        ),
        (
            (AUTHORIZATION, "localsubjectaccessreviews", ""),
            access(Scope::Local),
        ),
        (
            (AUTHORIZATION, "selfsubjectaccessreviews", ""),
            access(Scope::Own),
        ),
        (
            (AUTHORIZATION, "selfsubjectrulesreviews", ""),
            Arc::new(RulesReviews {
                authorizer: authorizer.clone(),
            }),
        ),
    ]
}
