//! `TokenReview`: whose token is this?

use std::sync::Arc;

use futures::future::BoxFuture;
use meta::Status;
use serde_json::{Value, json};

use super::super::object_meta::meta_mut;
use super::super::rest::{Reply, Rest, Target};
use super::who::user_info;
use crate::authn::Authenticator;

pub struct TokenReviews {
    pub authenticator: Arc<dyn Authenticator>,
}

impl Rest for TokenReviews {
    fn create<'a>(
        &'a self,
        target: Target<'a>,
        mut review: Value,
    ) -> BoxFuture<'a, Result<Reply, Status>> {
        Box::pin(async move {
            if !target.namespace.is_empty() {
                return Err(Status::bad_request(format!(
                    "namespace is not allowed on this type: {}",
                    target.namespace
                )));
            }
            let token = review["spec"]["token"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if token.is_empty() {
                return Err(Status::bad_request(
                    "token is required for TokenReview in authentication",
                ));
            }
            let audiences: Vec<String> = review["spec"]["audiences"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect();
            let mut status = json!({});
            match self.authenticator.review_token(&token, &audiences).await {
                Ok(Some((user, audiences))) => {
                    status["authenticated"] = json!(true);
                    status["user"] = user_info(&user);
                    if !audiences.is_empty() {
                        status["audiences"] = json!(audiences);
                    }
                }
                Ok(None) => status["error"] = json!("invalid bearer token"),
                Err(e) => status["error"] = json!(e.to_string()),
            }
            review["status"] = status;
            meta_mut(&mut review).remove("namespace");
            // Nobody needs to see the token again.
            Ok(Reply::Object(review))
        })
    }
}
