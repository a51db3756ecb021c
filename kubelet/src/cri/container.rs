//! A container as the runtime is to make it. Pure, given what was resolved before: environment,
//! mounts, image.

use std::collections::BTreeMap;

use grpc::cri::{
    CdiDevice, ContainerConfig, ContainerMetadata, Device, ImageSpec, KeyValue,
    LinuxContainerConfig, Mount, NamespaceMode, Signal,
};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::limits::{self, LimitDefaults};
use super::security::{self, ImageUser, SecurityDefaults, SecurityError};
use super::{expansion, labels, logs};

/// What a container takes beside its spec.
#[derive(Debug)]
pub struct ContainerInput<'a> {
    pub restart_count: i32,
    /// The image as the runtime knows it.
    pub image_ref: String,
    pub image_user: ImageUser,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// Volumes that are devices.
    pub devices: Vec<Device>,
    /// Of the devices that it was given.
    pub annotations: BTreeMap<String, String>,
    /// Names of the devices that claims and plugins have brought.
    pub cdi_devices: Vec<String>,
    /// The container whose processes an ephemeral one is to see.
    pub target_id: Option<String>,
    pub security: &'a SecurityDefaults,
    pub limits: &'a LimitDefaults,
}

/// # Errors
/// As [`security::container`].
pub fn config(
    pod: &Pod,
    container: &Container,
    input: ContainerInput<'_>,
) -> Result<ContainerConfig, SecurityError> {
    let lookup = |name: &str| {
        input
            .env
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        words
            .iter()
            .flatten()
            .map(|word| expansion::expand(word, lookup))
            .collect()
    };
    let mut security_context =
        security::container(pod, container, &input.image_user, input.security)?;
    if let (Some(target_id), Some(namespaces)) =
        (input.target_id, &mut security_context.namespace_options)
        && namespaces.pid() == NamespaceMode::Container
    {
        namespaces.pid = NamespaceMode::Target.into();
        namespaces.target_id = target_id;
    }
    let stop_signal = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.as_deref());
    let mut annotations = input.annotations;
    let own = labels::container_annotations(container, pod, input.restart_count);
    annotations.extend(own);
    let cdi_devices = input.cdi_devices.into_iter().map(|name| CdiDevice { name });
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt: input.restart_count.try_into().unwrap_or_default(),
        }),
        image: Some(ImageSpec {
            image: input.image_ref,
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: labels::container_labels(container, pod),
        annotations,
        mounts: input.mounts,
        devices: input.devices,
        cdi_devices: cdi_devices.collect(),
        log_path: logs::relative_path(&container.name, input.restart_count),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        tty: container.tty.unwrap_or_default(),
        linux: Some(LinuxContainerConfig {
            resources: Some(limits::container(pod, container, input.limits)),
            security_context: Some(security_context),
        }),
        stop_signal: stop_signal.map_or(Signal::RuntimeDefault, signal).into(),
        envs: input
            .env
            .into_iter()
            .map(|(key, value)| KeyValue {
                key,
                value: value.into_bytes(),
            })
            .collect(),
    })
}

/// `SIGRTMIN+1` is `SIGRTMINPLUS1` to the runtime.
fn signal(name: &str) -> Signal {
    let name = name.replace('+', "PLUS").replace('-', "MINUS");
    Signal::from_str_name(&name).unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pods::pod::PodExt;

    #[test]
    fn a_container() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "img", "command": ["sh", "-c", "echo $(A) $(B)"],
                "lifecycle": {"stopSignal": "SIGRTMIN+3"}, "tty": true}]},
        }))
        .unwrap();
        let (security, limits) = (SecurityDefaults::default(), LimitDefaults::default());
        let input = ContainerInput {
            restart_count: 2,
            image_ref: "sha256:1".into(),
            image_user: ImageUser::Id(0),
            env: vec![("A".into(), "a".into())],
            mounts: vec![],
            devices: vec![],
            annotations: [("d.io/a".to_owned(), "1".to_owned())].into(),
            cdi_devices: vec!["d.io/gpu=0".into()],
            target_id: Some("other".into()),
            security: &security,
            limits: &limits,
        };
        let config = config(&pod, &pod.containers()[0], input).unwrap();
        assert_eq!(config.command, ["sh", "-c", "echo a $(B)"]);
        assert_eq!(config.log_path, "c/2.log");
        assert_eq!(config.cdi_devices[0].name, "d.io/gpu=0");
        assert_eq!(config.annotations["d.io/a"], "1");
        assert!(config.annotations.len() > 1);
        assert_eq!(config.stop_signal(), Signal::Sigrtminplus3);
        let namespaces = config
            .linux
            .unwrap()
            .security_context
            .unwrap()
            .namespace_options
            .unwrap();
        assert_eq!(
            (namespaces.pid(), namespaces.target_id.as_str()),
            (NamespaceMode::Target, "other")
        );
    }
}
