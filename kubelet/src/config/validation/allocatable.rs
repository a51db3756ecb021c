//! Which of what is reserved is enforced, and bridges, whose check upstream makes in between.

use meta::gofmt::Quoted;

use super::{Context, Errors};

const FLAG: &str = "enforceNodeAllocatable (--enforce-node-allocatable)";

pub fn judge(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    let levels = &c.enforce_node_allocatable;
    let has = |level: &str| levels.iter().any(|l| l == level);
    for whose in ["system", "kube"] {
        let (all, compressible) = (
            format!("{whose}-reserved"),
            format!("{whose}-reserved-compressible"),
        );
        errors.wrong_if(
            has(&all) && has(&compressible),
            format!("both {all:?} and {compressible:?} cannot be specified together in {FLAG}"),
        );
    }
    for (at, level) in levels.iter().enumerate() {
        let quoted = Quoted(level);
        if levels[..at].contains(level) {
            errors.wrong(format!("duplicated enforcements {quoted} in {FLAG}"));
            continue;
        }
        match level.as_str() {
            "pods" => {}
            "system-reserved" | "system-reserved-compressible" => errors.wrong_if(
                c.system_reserved_cgroup.is_empty(),
                format!(
                    "systemReservedCgroup (--system-reserved-cgroup) must be specified when \"system-reserved\" or \
                     \"system-reserved-compressible\" included in {FLAG}"
                ),
            ),
            "kube-reserved" | "kube-reserved-compressible" => errors.wrong_if(
                c.kube_reserved_cgroup.is_empty(),
                format!(
                    "kubeReservedCgroup (--kube-reserved-cgroup) must be specified when \"kube-reserved\" or \
                     \"kube-reserved-compressible\" included in {FLAG}"
                ),
            ),
            "none" => {
                errors.wrong_if(
                    levels.len() > 1,
                    format!(
                        "{FLAG} may not contain additional enforcements when \"none\" is specified"
                    ),
                );
                continue;
            }
            _ => {
                errors.wrong(format!(
                    "option {quoted} specified for {FLAG}. Valid options are \"pods\", \"system-reserved\", \
                     \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\""
                ));
                continue;
            }
        }
        errors.wrong_if(
            !c.cgroups_per_qos,
            format!("cgroupsPerQOS (--cgroups-per-qos) must be set to true when {quoted} contained in {FLAG}"),
        );
    }
    errors.wrong_if(
        !matches!(
            c.hairpin_mode.as_str(),
            "none" | "hairpin-veth" | "promiscuous-bridge"
        ),
        format!(
            "option {} specified for hairpinMode (--hairpin-mode). Valid options are \"none\", \"hairpin-veth\" or \
             \"promiscuous-bridge\"",
            Quoted(&c.hairpin_mode)
        ),
    );
}
