//! What the metrics of an autoscaler propose: reads each, and takes the highest proposal.

use client::ObjectKey;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::GroupResource;
use meta::labels::Selector;
use meta::quantity::{Format, Quantity};

use super::replicas::TargetPod;
use super::{Controller, set_condition};
use crate::events::reference;
use crate::workload::selectors::go_selector;

/// What all metrics together propose.
pub struct Proposed {
    pub replicas: i32,
    /// The metric that proposes it, in words.
    pub metric: String,
    pub metrics: Vec<MetricStatus>,
    /// Some could not be read.
    pub trouble: Option<String>,
}

/// What one metric proposes.
struct One {
    replicas: i32,
    metric: String,
    status: MetricStatus,
}

/// A metric that could not be read: the reason of the event and condition, the message of both,
/// and what is made of it in the end.
struct Unread {
    reason: &'static str,
    why: String,
    outer: String,
}

/// What metrics are read of.
struct Scene<'a> {
    spec: &'a HorizontalPodAutoscalerSpec,
    namespace: &'a str,
    selector: Selector,
    pods: Vec<TargetPod>,
    /// As the target's scale wants it, and as it is.
    wanted: i32,
    present: i32,
}

/// Whether there are metrics of something else than the target's pods, which may ask for pods
/// where there are none.
pub fn has_outside_metrics(spec: &HorizontalPodAutoscalerSpec) -> bool {
    let mut metrics = spec.metrics.iter().flatten();
    metrics.any(|m| matches!(m.type_.as_str(), "Object" | "External"))
}

fn quantity(milli: i64, format: Format) -> Text {
    Text(Quantity::from_milli(milli, format).to_string())
}

fn milli(text: &Text) -> Result<i64, String> {
    let quantity: Result<Quantity, _> = text.0.parse();
    Ok(quantity.map_err(|e| e.to_string())?.milli_value())
}

fn selector_of(metric: &MetricIdentifier) -> Result<Selector, String> {
    match &metric.selector {
        // As upstream: none at all selects nothing of pods' labels, but here everything.
        None => Ok(Selector::everything()),
        Some(selector) => Selector::from_label_selector(Some(selector)).map_err(|e| e.to_string()),
    }
}

fn mean(value: i64) -> MetricValueStatus {
    MetricValueStatus {
        average_value: Some(quantity(value, Format::DecimalSI)),
        ..MetricValueStatus::default()
    }
}

fn whole(value: i64) -> MetricValueStatus {
    MetricValueStatus {
        value: Some(quantity(value, Format::DecimalSI)),
        ..MetricValueStatus::default()
    }
}

fn external_words(name: &str, selector: Option<&LabelSelector>) -> String {
    format!("external metric {name}({})", go_selector(selector))
}

impl Controller {
    /// The highest proposal. A failure comes with what is known of the metrics.
    pub(super) async fn propose(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> Result<Proposed, (Vec<MetricStatus>, String)> {
        let about = reference(scaler);
        let (selector, pods) = self
            .select(key, scaler, scale, status)
            .await
            .map_err(|e| (Vec::new(), e))?;
        let scene = Scene {
            spec,
            namespace: key.namespace(),
            selector,
            pods,
            wanted: scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0),
            present: scale.status.as_ref().map_or(0, |s| s.replicas),
        };
        let mut proposed = Proposed {
            replicas: 0,
            metric: String::new(),
            metrics: Vec::new(),
            trouble: None,
        };
        let specs = spec.metrics.as_deref().unwrap_or_default();
        let mut first: Option<Unread> = None;
        let mut unread = 0;
        for metric in specs {
            let began = std::time::Instant::now();
            let one = self.one(&scene, metric).await;
            let replicas = one.as_ref().ok().map(|one| one.replicas);
            self.monitor
                .computed(&metric.type_, scene.wanted, replicas, began);
            match one {
                Ok(one) => {
                    if proposed.replicas == 0 || one.replicas > proposed.replicas {
                        proposed.replicas = one.replicas;
                        proposed.metric = one.metric;
                    }
                    proposed.metrics.push(one.status);
                }
                Err(failure) => {
                    self.events
                        .event(&about, true, failure.reason, &failure.why);
                    // Upstream leaves an empty status there.
                    proposed.metrics.push(MetricStatus::default());
                    first.get_or_insert(failure);
                    unread += 1;
                }
            }
        }
        if let Some(first) = first {
            let trouble = format!(
                "invalid metrics ({unread} invalid out of {}), first error is: {}",
                specs.len(),
                first.outer
            );
            // What is not known might be the reason not to shrink.
            if unread >= specs.len() || proposed.replicas < scene.wanted {
                let message = format!(
                    "the HPA was unable to compute the replica count: {}",
                    first.why
                );
                set_condition(status, "ScalingActive", false, first.reason, message);
                return Err((proposed.metrics, trouble));
            }
            proposed.trouble = Some(trouble);
        }
        let message = format!(
            "the HPA was able to successfully calculate a replica count from {}",
            proposed.metric
        );
        set_condition(status, "ScalingActive", true, "ValidMetricFound", message);
        Ok(proposed)
    }

    /// The target's selector and pods, if they are this autoscaler's alone.
    async fn select(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        scale: &Scale,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> Result<(Selector, Vec<TargetPod>), String> {
        let about = reference(scaler);
        let text = scale.status.as_ref().and_then(|s| s.selector.as_deref());
        let Some(text) = text.filter(|t| !t.is_empty()) else {
            let why = "selector is required";
            self.events.event(&about, true, "SelectorRequired", why);
            let message = "the HPA target's scale is missing a selector";
            set_condition(status, "ScalingActive", false, "InvalidSelector", message);
            return Err(why.to_owned());
        };
        let selector = match Selector::parse(text) {
            Ok(selector) => selector,
            Err(e) => {
                let why = format!(
                    "couldn't convert selector into a corresponding internal selector object: {e}"
                );
                self.events.event(&about, true, "InvalidSelector", &why);
                set_condition(status, "ScalingActive", false, "InvalidSelector", &why);
                return Err(why);
            }
        };
        self.selectors.lock().insert(key.clone(), selector.clone());
        let pods = self.pods(key.namespace(), &selector).await;
        let pods =
            pods.map_err(|e| format!("unable to get pods while calculating replica count: {e}"))?;
        let whose = self.whose(key.namespace(), &pods);
        if whose.len() > 1 {
            let keys = whose.iter().map(|k| k.as_str());
            let keys = keys.collect::<Vec<_>>().join(" ");
            let why = format!("pods by selector {text} are controlled by multiple HPAs: [{keys}]");
            self.events.event(&about, true, "AmbiguousSelector", &why);
            set_condition(status, "ScalingActive", false, "AmbiguousSelector", &why);
            return Err(why);
        }
        Ok((selector, pods))
    }

    async fn one(&self, scene: &Scene<'_>, spec: &MetricSpec) -> Result<One, Unread> {
        match (
            &spec.resource,
            &spec.container_resource,
            &spec.pods,
            &spec.object,
            &spec.external,
        ) {
            (Some(source), ..) => {
                let read = self
                    .resource(scene, &source.name, "", &source.target, false)
                    .await;
                let (replicas, metric, current) = read.map_err(|why| Unread {
                    reason: "FailedGetResourceMetric",
                    outer: format!("failed to get {} resource metric value: {why}", source.name),
                    why,
                })?;
                let resource = Some(ResourceMetricStatus {
                    name: source.name.clone(),
                    current,
                });
                Ok(One {
                    replicas,
                    metric,
                    status: MetricStatus {
                        type_: "Resource".to_owned(),
                        resource,
                        ..MetricStatus::default()
                    },
                })
            }
            (_, Some(source), ..) => {
                let read =
                    self.resource(scene, &source.name, &source.container, &source.target, true);
                let (replicas, metric, current) = read.await.map_err(|why| Unread {
                    reason: "FailedGetContainerResourceMetric",
                    outer: format!(
                        "failed to get {} container metric value: {why}",
                        source.container
                    ),
                    why,
                })?;
                let container_resource = Some(ContainerResourceMetricStatus {
                    name: source.name.clone(),
                    container: source.container.clone(),
                    current,
                });
                Ok(One {
                    replicas,
                    metric,
                    status: MetricStatus {
                        type_: "ContainerResource".to_owned(),
                        container_resource,
                        ..MetricStatus::default()
                    },
                })
            }
            (_, _, Some(source), ..) => {
                let read = self.of_pods(scene, &source.metric, &source.target).await;
                let (replicas, value) = read.map_err(|why| Unread {
                    reason: "FailedGetPodsMetric",
                    outer: format!("failed to get pods metric value: {why}"),
                    why,
                })?;
                let pods = Some(PodsMetricStatus {
                    metric: source.metric.clone(),
                    current: mean(value),
                });
                Ok(One {
                    replicas,
                    metric: format!("pods metric {}", source.metric.name),
                    status: MetricStatus {
                        type_: "Pods".to_owned(),
                        pods,
                        ..MetricStatus::default()
                    },
                })
            }
            (_, _, _, Some(source), _) => {
                let read = self.of_object(scene, source).await;
                let (replicas, metric, current) = read.map_err(|why| {
                    let again = match source.target.type_.as_str() {
                        "AverageValue" => {
                            format!("failed to get {} object metric: ", source.metric.name)
                        }
                        _ => String::new(),
                    };
                    Unread {
                        reason: "FailedGetObjectMetric",
                        outer: format!("failed to get object metric value: {again}{why}"),
                        why,
                    }
                })?;
                let object = Some(ObjectMetricStatus {
                    described_object: source.described_object.clone(),
                    metric: source.metric.clone(),
                    current,
                });
                Ok(One {
                    replicas,
                    metric,
                    status: MetricStatus {
                        type_: "Object".to_owned(),
                        object,
                        ..MetricStatus::default()
                    },
                })
            }
            (_, _, _, _, Some(source)) => {
                let read = self.outside(scene, &source.metric, &source.target).await;
                let (replicas, current) = read.map_err(|why| {
                    let name = &source.metric.name;
                    let again = match (&source.target.average_value, &source.target.value) {
                        (Some(_), _) => format!("failed to get {name} external metric: "),
                        (None, Some(_)) => format!("failed to get external metric {name}: "),
                        (None, None) => String::new(),
                    };
                    Unread {
                        reason: "FailedGetExternalMetric",
                        outer: format!("failed to get {name} external metric value: {again}{why}"),
                        why,
                    }
                })?;
                let external = Some(ExternalMetricStatus {
                    metric: source.metric.clone(),
                    current,
                });
                Ok(One {
                    replicas,
                    metric: external_words(&source.metric.name, source.metric.selector.as_ref()),
                    status: MetricStatus {
                        type_: "External".to_owned(),
                        external,
                        ..MetricStatus::default()
                    },
                })
            }
            _ => {
                let why = format!("unknown metric source type {:?}", spec.type_);
                Err(Unread {
                    reason: "InvalidMetricSourceType",
                    outer: why.clone(),
                    why,
                })
            }
        }
    }

    /// A resource of the pods, or of one container of each.
    async fn resource(
        &self,
        scene: &Scene<'_>,
        resource: &str,
        container: &str,
        target: &MetricTarget,
        of_container: bool,
    ) -> Result<(i32, String, MetricValueStatus), String> {
        let what = if target.average_value.is_some() {
            "usage"
        } else {
            "utilization"
        };
        let wrong = |why: String| format!("failed to get {resource} {what}: {why}");
        if target.average_value.is_none() && target.average_utilization.is_none() {
            return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned());
        }
        let read = self
            .metrics
            .resource(resource, container, scene.namespace, &scene.selector)
            .await;
        let metrics = read.map_err(|e| {
            wrong(format!(
                "unable to get metrics for resource {resource}: {e}"
            ))
        })?;
        let given = self.given(scene.spec, &scene.pods, scene.wanted);
        // As metrics-server writes memory.
        let format = match resource == "memory" {
            true => Format::BinarySI,
            false => Format::DecimalSI,
        };
        if let Some(target) = &target.average_value {
            let target = milli(target).map_err(wrong)?;
            let (replicas, value) = given
                .by_mean(metrics, resource == "cpu", target)
                .map_err(wrong)?;
            let current = MetricValueStatus {
                average_value: Some(quantity(value, format)),
                ..MetricValueStatus::default()
            };
            return Ok((replicas, format!("{resource} resource"), current));
        }
        let target = target.average_utilization.unwrap_or(0);
        let found = given.by_utilization(metrics, resource, container, target);
        let (replicas, percent, value) = found.map_err(wrong)?;
        let of = if of_container { " container" } else { "" };
        let current = MetricValueStatus {
            average_utilization: Some(percent),
            average_value: Some(quantity(value, format)),
            ..MetricValueStatus::default()
        };
        let words = format!("{resource}{of} resource utilization (percentage of request)");
        Ok((replicas, words, current))
    }

    async fn of_pods(
        &self,
        scene: &Scene<'_>,
        metric: &MetricIdentifier,
        target: &MetricTarget,
    ) -> Result<(i32, i64), String> {
        let target = target.average_value.as_ref().map(milli).transpose()?;
        let target = target.ok_or("invalid pods metric source: no average value target was set")?;
        let of_metric = selector_of(metric)?;
        let read = self
            .metrics
            .pods(&metric.name, scene.namespace, &scene.selector, &of_metric)
            .await;
        let metrics = read.map_err(|e| format!("unable to get metric {}: {e}", metric.name))?;
        let given = self.given(scene.spec, &scene.pods, scene.wanted);
        given.by_mean(metrics, false, target)
    }

    async fn of_object(
        &self,
        scene: &Scene<'_>,
        source: &k8s_openapi::api::autoscaling::v2::ObjectMetricSource,
    ) -> Result<(i32, String, MetricValueStatus), String> {
        let (metric, target) = (&source.metric, &source.target);
        let object = &source.described_object;
        let of_metric = selector_of(metric)?;
        let version = object.api_version.as_deref().unwrap_or_default();
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        let kind = object.kind.as_str();
        let resource = async {
            if group.is_empty() && kind == "Namespace" {
                return Ok(None);
            }
            let found = self.scales.resource(group, kind).await;
            let found = found.map_err(|e| e.to_string()).and_then(|found| {
                found.ok_or_else(|| format!("no matches for kind {kind:?} in group {group:?}"))
            });
            let of = GroupResource::new(group, kind);
            let found = found.map_err(|e| format!("unable to map kind {of} to resource: {e}"))?;
            Ok(Some(GroupResource::new(group, &found.name).to_string()))
        };
        let read = self.metrics.object(
            &metric.name,
            scene.namespace,
            resource,
            &object.name,
            &of_metric,
        );
        let read = read.await;
        let value = read.map_err(|e| {
            format!(
                "unable to get metric {}: {} on {} {}/{}",
                metric.name, object.kind, scene.namespace, object.name, e
            )
        })?;
        let given = self.given(scene.spec, &scene.pods, scene.wanted);
        match (target.type_.as_str(), &target.value, &target.average_value) {
            ("Value", Some(target), _) => {
                let replicas = given.by_value(value, milli(target)?)?;
                let words = format!("{} metric {}", object.kind, metric.name);
                Ok((replicas, words, whole(value)))
            }
            ("AverageValue", _, Some(target)) => {
                let (replicas, share) = given.by_share(value, milli(target)?, scene.present);
                let words = external_words(&metric.name, metric.selector.as_ref());
                Ok((replicas, words, mean(share)))
            }
            _ => Err("invalid object metric source: neither a value target nor an average value target was set".to_owned()),
        }
    }

    async fn outside(
        &self,
        scene: &Scene<'_>,
        metric: &MetricIdentifier,
        target: &MetricTarget,
    ) -> Result<(i32, MetricValueStatus), String> {
        if target.average_value.is_none() && target.value.is_none() {
            return Err("invalid external metric source: neither a value target nor an average value target was set".to_owned());
        }
        let of_metric = selector_of(metric)?;
        let values = self
            .metrics
            .external(&metric.name, scene.namespace, &of_metric)
            .await;
        let values = values.map_err(|e| {
            let selector = go_selector(metric.selector.as_ref());
            let what = format!("{}/{}/{selector}", scene.namespace, metric.name);
            format!("unable to get external metric {what}: {e}")
        });
        let values = values?;
        let value = values.iter().fold(0_i64, |sum, v| sum.saturating_add(*v));
        let given = self.given(scene.spec, &scene.pods, scene.wanted);
        if let Some(target) = &target.average_value {
            let (replicas, share) = given.by_share(value, milli(target)?, scene.present);
            return Ok((replicas, mean(share)));
        }
        let target = target.value.as_ref().map(milli).transpose()?.unwrap_or(0);
        let replicas = given.by_value(value, target)?;
        Ok((replicas, whole(value)))
    }
}
