//! Flags of what this manager does not do yet: accepted, so that the same command line starts
//! it, and without effect. They move out of here with what they are about.

use clap::Args;

use super::Count;

#[derive(Args, Debug)]
#[group(skip)]
pub struct AbsentControllerFlags {
    /// Volumes are made by CSI drivers alone, not by the manager itself for tests.
    #[arg(long)]
    enable_hostpath_provisioner: bool,
    /// Of volumes only those of CSI drivers are attached and grown.
    #[arg(
        long,
        default_value = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"
    )]
    flex_volume_plugin_dir: String,
    /// Load balancers are the cloud controller manager's, in upstream's manager as well.
    #[arg(long, default_value_t = Count(1))]
    concurrent_service_syncs: Count,
}
