//! Topology manager.

use meta::gofmt::Quoted;

use super::{Context, Errors};
use crate::topology::Policy;

pub fn judge(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    errors.wrong_if(
        Policy::parse(&c.topology_manager_policy).is_none(),
        format!(
            "topologyManagerPolicy (--topology-manager-policy) {} must be one of: [\"none\" \"best-effort\" \
             \"restricted\" \"single-numa-node\"]",
            Quoted(&c.topology_manager_policy)
        ),
    );
    errors.wrong_if(
        !matches!(c.topology_manager_scope.as_str(), "container" | "pod"),
        format!(
            "topologyManagerScope (--topology-manager-scope) {} must be one of: \"container\", or \"pod\"",
            Quoted(&c.topology_manager_scope)
        ),
    );
}
