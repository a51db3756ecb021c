//! Flags of what this manager does not do yet: accepted, so that the same command line starts
//! it, and without effect. They move out of here with what they are about.

use clap::Args;

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
    // Volumes that are to be recycled are not: they fail, as those do that upstream knows no
    // recycler for.
    #[arg(long, default_value_t = 30)]
    pv_recycler_increment_timeout_nfs: i32,
    #[arg(long, default_value_t = 60)]
    pv_recycler_minimum_timeout_hostpath: i32,
    #[arg(long, default_value_t = 300)]
    pv_recycler_minimum_timeout_nfs: i32,
    #[arg(long, default_value = "")]
    pv_recycler_pod_template_filepath_hostpath: String,
    #[arg(long, default_value = "")]
    pv_recycler_pod_template_filepath_nfs: String,
    #[arg(long, default_value_t = 30)]
    pv_recycler_timeout_increment_hostpath: i32,
    /// Load balancers are the cloud controller manager's, in upstream's manager as well.
    #[arg(long, default_value_t = 1)]
    concurrent_service_syncs: usize,
}
