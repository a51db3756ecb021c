//! `SelfSubjectReview`: who am I (`kubectl auth whoami`)?

use futures::future::BoxFuture;
use meta::Status;
use serde_json::{Value, json};

use super::super::rest::{Reply, Rest, Target};
use crate::authn::User;

pub struct SelfReviews;

/// A user as `UserInfo`.
pub fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

impl Rest for SelfReviews {
    fn create<'a>(
        &'a self,
        target: Target<'a>,
        mut review: Value,
    ) -> BoxFuture<'a, Result<Reply, Status>> {
        Box::pin(async move {
            review["metadata"] = json!({"creationTimestamp": super::super::object_meta::time(jiff::Timestamp::now())});
            review["status"] = json!({"userInfo": user_info(target.user)});
            Ok(Reply::Object(review))
        })
    }
}
