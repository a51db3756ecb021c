//! `serviceaccounts/token`: a TokenRequest is answered with a token.

use std::sync::Arc;

use futures::future::BoxFuture;
use meta::Status;
use serde_json::Value;

use super::rest::{Reply, Rest, Target};
use super::store::{Store, Write};
use crate::authn::token_issuer::TokenIssuer;
use crate::lookup::Lookup;

pub struct Tokens {
    pub service_accounts: Arc<Store>,
    pub issuer: Arc<TokenIssuer>,
    pub lookup: Arc<dyn Lookup>,
}

impl Rest for Tokens {
    fn create<'a>(
        &'a self,
        target: Target<'a>,
        mut request: Value,
    ) -> BoxFuture<'a, Result<Reply, Status>> {
        Box::pin(async move {
            target.check_namespace(&request)?;
            let write = Write {
                user: target.user,
                group: "",
                namespace: target.namespace,
                name: target.name,
                subresource: "token",
                dry_run: target.dry_run,
                warnings: target.warnings,
                fields: None,
            };
            let accounts = &self.service_accounts;
            // Before defaults: NodeRestriction looks at what the kubelet itself asks for.
            accounts.mutate_subresource(&write, &mut request).await?;
            let admit = |request: Value| async move {
                accounts.validate_subresource(&write, &request).await
            };
            let issued = self
                .issuer
                .create(&*self.lookup, target.namespace, target.name, request, admit)
                .await?;
            for warning in issued.warnings {
                target.warnings.add(warning);
            }
            Ok(Reply::Object(issued.object))
        })
    }
}
