//! Flags of controllers that this manager does not run yet: accepted, so that the same command
//! line starts it, and without effect. They move out of here with their controllers.

use clap::Args;

#[derive(Args, Debug)]
#[group(skip)]
pub struct AbsentControllerFlags {
    #[arg(long)]
    enable_hostpath_provisioner: bool,
    #[arg(
        long,
        default_value = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"
    )]
    flex_volume_plugin_dir: String,
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
    #[arg(long, default_value_t = 1)]
    concurrent_service_syncs: usize,
    #[arg(long, default_value_t = 5)]
    concurrent_validating_admission_policy_status_syncs: usize,
}
