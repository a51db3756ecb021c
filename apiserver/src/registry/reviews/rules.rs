//! `SelfSubjectRulesReview`: what may I do here (`kubectl auth can-i --list`)?

use std::sync::Arc;

use futures::future::BoxFuture;
use meta::Status;
use serde_json::{Value, json};

use super::super::object_meta::meta_mut;
use super::super::rest::{Reply, Rest, Target};
use crate::authz::Authorizer;

pub struct RulesReviews {
    pub authorizer: Arc<dyn Authorizer>,
}

impl Rest for RulesReviews {
    fn create<'a>(
        &'a self,
        target: Target<'a>,
        mut review: Value,
    ) -> BoxFuture<'a, Result<Reply, Status>> {
        Box::pin(async move {
            let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            let rules = self.authorizer.rules_for(target.user, namespace);
            let mut status = json!({
                "resourceRules": rules.resource,
                "nonResourceRules": rules.non_resource,
                "incomplete": rules.incomplete,
            });
            if let Some(error) = rules.evaluation_error {
                status["evaluationError"] = json!(error);
            }
            review["status"] = status;
            // Upstream answers about the request's namespace without repeating it.
            review["spec"] = json!({});
            meta_mut(&mut review).clear();
            Ok(Reply::Object(review))
        })
    }
}
