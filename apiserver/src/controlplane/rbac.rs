//! The default roles and bindings (`authz/bootstrap`), written through the registry.

use std::sync::Arc;

use meta::Status;

use super::ControlPlane;
use crate::authz::bootstrap::reconcile;

pub(super) async fn ensure(cp: Arc<ControlPlane>) -> Result<(), Status> {
    reconcile::run(&*cp.local, &cp.gates)
        .await
        .map_err(|errors| errors.into_iter().next().unwrap_or_default())
}
