//! What a node declares that it can do and older kubelets cannot (`status.declaredFeatures`,
//! KEP-5328): the API server and the scheduler heed it. Pure.
//!
//! What must not be here: a feature that is not there.

use component::features::FeatureGates;

/// The kubelet serves every streaming protocol over WebSockets, so that the API server passes
/// them on as they are.
pub const WEBSOCKETS: &str = "ExtendWebSocketsToKubelet";

/// Init containers that end, and pods as a whole, can be given other resources while they run.
pub const RESIZES: [&str; 2] = [
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
];

/// A container's end can restart all of its pod's.
pub const RESTART_ALL: &str = "RestartAllContainersOnContainerExits";

/// The features, in order; `None` where nodes declare nothing.
pub fn features(gates: &FeatureGates) -> Option<Vec<String>> {
    let all = [WEBSOCKETS].into_iter().chain(RESIZES).chain([RESTART_ALL]);
    let features = all.filter(|feature| gates.enabled(feature));
    let features: Vec<String> = features.map(str::to_owned).collect();
    (gates.enabled("NodeDeclaredFeatures") && !features.is_empty()).then_some(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_not_declared() {
        let of = |text| features(&FeatureGates::parse(text).unwrap());
        let all = [WEBSOCKETS].into_iter().chain(RESIZES).chain([RESTART_ALL]);
        assert_eq!(of(""), Some(all.map(str::to_owned).collect()));
        assert_eq!(of("NodeDeclaredFeatures=false"), None);
        let others = RESIZES.into_iter().chain([RESTART_ALL]);
        assert_eq!(
            of("ExtendWebSocketsToKubelet=false"),
            Some(others.map(str::to_owned).collect())
        );
    }
}
