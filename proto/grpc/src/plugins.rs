//! A node's plugins: how they make themselves known (`registration`), what drivers of devices
//! (`dra`, and before them `devices`) and of volumes (`csi`) do for the kubelet.

#![allow(missing_docs, clippy::all, rustdoc::all)]

/// Every plugin serves this on a socket in the kubelet's `plugins_registry`.
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// Dynamic resource allocation. The messages of `v1beta1` are those of `v1`.
pub mod dra {
    pub mod v1 {
        tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
    }
    pub mod v1beta1 {
        tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1beta1");
    }
    pub mod health {
        tonic::include_proto!("v1alpha1");
    }
}

/// Device plugins, `v1beta1`.
pub mod devices {
    tonic::include_proto!("v1beta1");
}

/// Container Storage Interface v1, its Node service. Requests that carry secrets print as little
/// as tells them apart.
pub mod csi {
    tonic::include_proto!("csi.v1");

    impl std::fmt::Debug for NodeStageVolumeRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("NodeStageVolumeRequest")
                .field("volume_id", &self.volume_id)
                .field("staging_target_path", &self.staging_target_path)
                .finish_non_exhaustive()
        }
    }

    impl std::fmt::Debug for NodePublishVolumeRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("NodePublishVolumeRequest")
                .field("volume_id", &self.volume_id)
                .field("target_path", &self.target_path)
                .finish_non_exhaustive()
        }
    }

    impl std::fmt::Debug for NodeExpandVolumeRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("NodeExpandVolumeRequest")
                .field("volume_id", &self.volume_id)
                .field("volume_path", &self.volume_path)
                .finish_non_exhaustive()
        }
    }
}
