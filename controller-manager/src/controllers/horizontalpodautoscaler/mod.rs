//! horizontal-pod-autoscaler-controller: sets the scale of targets by what metrics say of their
//! pods.

mod behavior;
mod metrics;
mod monitor;
mod propose;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::informer::{Event as Change, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Client, Error, ListOptions, Object as _, ObjectKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::labels::Selector;
use parking_lot::Mutex;

use self::behavior::{Memory, Wish};
use self::metrics::Metrics;
use self::monitor::Monitor;
use self::replicas::{Given, TargetPod, Tolerance};
use crate::context::{Context, Run, now};
use crate::events::{Recorder, reference};
use crate::options::AutoscalerFlags;
use crate::workload::scales::{Scaled, Scales};

/// A scale that others write at the same time is written again so often.
const TRIES: usize = 5;

/// The flags, as spans.
struct Settings {
    period: Duration,
    down_window: SignedDuration,
    tolerance: f64,
    cpu_initialization: SignedDuration,
    initial_readiness: SignedDuration,
    /// The gate `HPAConfigurableTolerance` (KEP-4951).
    own_tolerance: bool,
    /// The gate `HPAScaleToZero` (KEP-2021).
    to_zero: bool,
}

struct Controller {
    scalers: Store<HorizontalPodAutoscaler>,
    api: Api<HorizontalPodAutoscaler>,
    pods: Api<TargetPod>,
    scales: Scales,
    metrics: Metrics,
    events: Recorder,
    settings: Settings,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
    /// Which pods are whose, to find those that are two autoscalers'.
    selectors: Mutex<HashMap<ObjectKey, Selector>>,
    queue: Queue<ObjectKey>,
    monitor: Monitor,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client: Client = ctx.client("horizontal-pod-autoscaler")?;
    let scalers = ctx.informer::<HorizontalPodAutoscaler>();
    let flags = &ctx.options.autoscaler;
    let controller = Arc::new(Controller {
        scalers: scalers.store().clone(),
        api: Api::all(&client),
        pods: Api::all(&client),
        scales: Scales::new(&client),
        metrics: Metrics::new(&client),
        events: ctx.recorder("horizontal-pod-autoscaler"),
        settings: settings(flags, &ctx.options.generic.feature_gates),
        memory: Mutex::default(),
        selectors: Mutex::default(),
        queue: ctx.queue("horizontalpodautoscaler"),
        monitor: Monitor::new(&ctx.meter)?,
    });
    let c = Arc::clone(&controller);
    scalers.add_handler(move |change| {
        let key = change.key();
        match change {
            Change::Added(_) => c.monitor.scalers.inc(),
            Change::Deleted(_) => c.monitor.scalers.dec(),
            Change::Updated { .. } => {}
        }
        if let Change::Deleted(_) = change {
            c.memory.lock().remove(&key);
            c.monitor.forget(key.namespace(), key.name());
            c.selectors.lock().remove(&key);
            return;
        }
        // Not at once: metrics need time to show what the last change has done.
        c.queue.add_after(key, c.settings.period);
    });
    let workers = flags.concurrent_horizontal_pod_autoscaler_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        scalers.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move {
                    let Some(scaler) = controller.scalers.get_key(&key) else {
                        return Ok::<_, Error>(Requeue::No);
                    };
                    let began = Instant::now();
                    let mut scaled = None;
                    let result = controller.reconcile(&key, &scaler, &mut scaled).await;
                    let monitor = &controller.monitor;
                    monitor.reconciled(scaled, result.is_ok(), began);
                    if let Err(e) = result {
                        tracing::error!(hpa = %key, error = %e, "autoscaling failed");
                    }
                    Ok(Requeue::After(controller.settings.period))
                }
            })
            .await;
    })))
}

fn settings(flags: &AutoscalerFlags, gates: &component::features::FeatureGates) -> Settings {
    let span =
        |d: component::flags::GoDuration| SignedDuration::try_from(d.get()).unwrap_or_default();
    Settings {
        period: flags.horizontal_pod_autoscaler_sync_period.get(),
        down_window: span(flags.horizontal_pod_autoscaler_downscale_stabilization),
        tolerance: flags.horizontal_pod_autoscaler_tolerance,
        cpu_initialization: span(flags.horizontal_pod_autoscaler_cpu_initialization_period),
        initial_readiness: span(flags.horizontal_pod_autoscaler_initial_readiness_delay),
        own_tolerance: gates.enabled("HPAConfigurableTolerance"),
        to_zero: gates.enabled("HPAScaleToZero"),
    }
}

/// Sets a condition of the status.
fn set_condition(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    is_true: bool,
    reason: &str,
    message: impl Into<String>,
) {
    let mut new = HorizontalPodAutoscalerCondition {
        type_: kind.to_owned(),
        status: if is_true { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now())),
    };
    let all = status.conditions.get_or_insert_default();
    match all.iter_mut().find(|c| c.type_ == kind) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.take();
            }
            *old = new;
        }
        None => all.push(new),
    }
}

/// Why the target has been given another size.
struct Reason(String);

impl Controller {
    /// Looks at one autoscaler; `scaled` is told from how many pods to how many. What it returns is for the log: events and conditions tell of it.
    async fn reconcile(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        scaled: &mut Option<(i32, i32)>,
    ) -> Result<(), String> {
        let about = reference(scaler);
        let spec = scaler.spec.clone();
        let mut status = scaler.status.clone().unwrap_or_default();
        let target = &spec.scale_target_ref;
        let found = self.target(&spec, key.namespace()).await;
        let (resource, scale) = match found {
            Ok(found) => found,
            Err(why) => {
                self.events.event(&about, true, "FailedGetScale", &why);
                let message = format!(
                    "the HPA controller was unable to get the target's current scale: {why}"
                );
                set_condition(&mut status, "AbleToScale", false, "FailedGetScale", message);
                self.store(scaler, &about, status).await?;
                return Err(format!(
                    "failed to query scale subresource for {}/{}/{}: {why}",
                    target.kind,
                    key.namespace(),
                    target.name
                ));
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        set_condition(
            &mut status,
            "AbleToScale",
            true,
            "SucceededGetScale",
            message,
        );
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let mut memory = self.memory.lock().get(key).cloned().unwrap_or_default();
        memory.begin(current, Timestamp::now());

        let decided = self
            .decide(key, scaler, &spec, &scale, &mut status, &mut memory)
            .await;
        // What was recommended counts the next time, whatever comes of it.
        self.memory.lock().insert(key.clone(), memory.clone());
        let Decided {
            desired,
            reason,
            metrics,
            trouble,
        } = match decided {
            Ok(decided) => decided,
            Err((metrics, why)) => {
                status.current_replicas = Some(current).filter(|n| *n != 0);
                status.current_metrics = Some(metrics).filter(|m| !m.is_empty());
                self.store(scaler, &about, status).await?;
                self.events
                    .event(&about, true, "FailedComputeMetricsReplicas", &why);
                return Err(why);
            }
        };
        let mut result = trouble.map_or(Ok(()), Err);
        if let Some(Reason(reason)) = reason {
            if let Err(e) = self.rescale(&resource, scale, desired).await {
                let message = format!("New size: {desired}; reason: {reason}; error: {e}");
                self.events.event(&about, true, "FailedRescale", message);
                let message =
                    format!("the HPA controller was unable to update the target scale: {e}");
                set_condition(
                    &mut status,
                    "AbleToScale",
                    false,
                    "FailedUpdateScale",
                    message,
                );
                status.current_replicas = Some(current).filter(|n| *n != 0);
                status.current_metrics = Some(metrics).filter(|m| !m.is_empty());
                self.store(scaler, &about, status).await?;
                return Err(format!("failed to rescale {}: {e}", target.name));
            }
            let message =
                format!("the HPA controller was able to update the target scale to {desired}");
            set_condition(
                &mut status,
                "AbleToScale",
                true,
                "SucceededRescale",
                message,
            );
            let message = format!("New size: {desired}; reason: {reason}");
            self.events
                .event(&about, false, "SuccessfulRescale", message);
            *scaled = Some((current, desired));
            memory.changed(spec.behavior.as_ref(), current, desired, Timestamp::now());
            self.memory.lock().insert(key.clone(), memory);
            self.note_zero(&spec, &mut status, current, desired);
            status.last_scale_time = Some(Time(now()));
        }
        self.monitor.desires(key.namespace(), key.name(), desired);
        status.current_replicas = Some(current).filter(|n| *n != 0);
        status.desired_replicas = desired;
        status.current_metrics = Some(metrics).filter(|m| !m.is_empty());
        status.observed_generation = None;
        if let Err(e) = self.store(scaler, &about, status).await {
            result = Err(e);
        }
        result
    }

    /// The target's resource and scale.
    async fn target(
        &self,
        spec: &HorizontalPodAutoscalerSpec,
        namespace: &str,
    ) -> Result<(Scaled, Scale), String> {
        let target = &spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or_default();
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        let resource = self.scales.resource(group, &target.kind).await;
        let resource = resource
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("no matches for kind {:?} in group {group:?}", target.kind))?;
        let scale = self.scales.get(&resource, namespace, &target.name).await;
        let scale = scale.map_err(|e| e.to_string())?;
        Ok((resource, scale))
    }

    /// Says in the status whether it was us who scaled to nothing.
    fn note_zero(
        &self,
        spec: &HorizontalPodAutoscalerSpec,
        status: &mut HorizontalPodAutoscalerStatus,
        current: i32,
        desired: i32,
    ) {
        const KIND: &str = "ScaledToZero";
        if !self.settings.to_zero {
            let conditions = status.conditions.as_mut();
            conditions
                .into_iter()
                .for_each(|c| c.retain(|c| c.type_ != KIND));
            return;
        }
        let to_zero = current > 0 && desired == 0 && spec.min_replicas == Some(0);
        if to_zero && propose::has_outside_metrics(spec) {
            let message = "the HPA controller scaled the workload to zero";
            set_condition(status, KIND, true, "ScaledToZero", message);
        } else {
            let message = "the HPA controller did not scale the workload to zero";
            set_condition(status, KIND, false, "NotScaledToZero", message);
        }
    }

    /// How many pods the target is to have.
    async fn decide(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        status: &mut HorizontalPodAutoscalerStatus,
        memory: &mut Memory,
    ) -> Result<Decided, (Vec<MetricStatus>, String)> {
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let min = spec.min_replicas.unwrap_or(1);
        let set = |desired, reason: &str| Decided {
            desired,
            reason: Some(Reason(reason.to_owned())).filter(|_| !reason.is_empty()),
            metrics: Vec::new(),
            trouble: None,
        };
        let by_us = |status: &HorizontalPodAutoscalerStatus| {
            let mut conditions = status.conditions.iter().flatten();
            self.settings.to_zero
                && conditions.any(|c| c.type_ == "ScaledToZero" && c.status == "True")
        };
        if current == 0 {
            if !(by_us(status) && (min != 0 || propose::has_outside_metrics(spec))) {
                let message = "scaling is disabled since the replica count of the target is zero";
                set_condition(status, "ScalingActive", false, "ScalingDisabled", message);
                return Ok(set(0, ""));
            }
        } else if current > spec.max_replicas {
            return Ok(set(
                spec.max_replicas,
                "Current number of replicas above Spec.MaxReplicas",
            ));
        } else if current < min {
            return Ok(set(
                min,
                "Current number of replicas below Spec.MinReplicas",
            ));
        }
        let proposed = self.propose(key, scaler, spec, scale, status).await?;
        let desired = proposed.replicas.max(0);
        let mut reason = match desired.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{} above target", proposed.metric),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let wish = Wish {
            current,
            desired,
            min,
            max: spec.max_replicas,
            now: Timestamp::now(),
        };
        let limited = match &spec.behavior {
            None => memory.limit(wish, self.settings.down_window),
            Some(rules) => {
                let window = i32::try_from(self.settings.down_window.as_secs()).unwrap_or(i32::MAX);
                memory.limit_by(rules, wish, window)
            }
        };
        let (ok, why, message) = limited.able;
        set_condition(status, "AbleToScale", ok, why, message);
        let (ok, why, message) = limited.limited;
        set_condition(status, "ScalingLimited", ok, why, message);
        let mut desired = limited.replicas;
        if current == 0 && min != 0 && by_us(status) && desired < min {
            desired = min;
            if reason.is_empty() {
                "Current number of replicas below Spec.MinReplicas".clone_into(&mut reason);
            }
        }
        Ok(Decided {
            desired,
            reason: (desired != current).then_some(Reason(reason)),
            metrics: proposed.metrics,
            trouble: proposed.trouble,
        })
    }

    async fn rescale(&self, resource: &Scaled, mut scale: Scale, to: i32) -> Result<(), Error> {
        let field = |f: &Option<String>| f.clone().unwrap_or_default();
        let namespace = field(&scale.metadata.namespace);
        let name = field(&scale.metadata.name);
        for _ in 1..TRIES {
            scale.spec.get_or_insert_default().replicas = Some(to);
            match self.scales.put(resource, &scale).await {
                Err(e) if e.is_conflict() => {
                    scale = self.scales.get(resource, &namespace, &name).await?;
                }
                other => return other,
            }
        }
        scale.spec.get_or_insert_default().replicas = Some(to);
        self.scales.put(resource, &scale).await
    }

    async fn store(
        &self,
        scaler: &HorizontalPodAutoscaler,
        about: &ObjectReference,
        status: HorizontalPodAutoscalerStatus,
    ) -> Result<(), String> {
        if scaler.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = HorizontalPodAutoscaler {
            status: Some(status),
            ..scaler.clone()
        };
        match self.api.replace_status(&changed).await {
            Ok(_) => Ok(()),
            Err(e) => {
                let message = e.to_string();
                self.events
                    .event(about, true, "FailedUpdateStatus", &message);
                Err(format!(
                    "failed to update status for {}: {e}",
                    scaler.name()
                ))
            }
        }
    }

    /// The pods of a selector. The server answers out of its cache.
    async fn pods(&self, namespace: &str, selector: &Selector) -> Result<Vec<TargetPod>, Error> {
        let options = ListOptions::new().labels(selector).at("0");
        Ok(self.pods.within(namespace).list(&options).await?.items)
    }

    /// Which autoscalers select one of these pods.
    fn whose(&self, namespace: &str, pods: &[TargetPod]) -> Vec<ObjectKey> {
        let selectors = self.selectors.lock();
        let selects = |s: &Selector| {
            pods.iter()
                .any(|p| s.matches_labels(Some(&p.metadata.labels)))
        };
        let mut keys: Vec<ObjectKey> = selectors
            .iter()
            .filter(|(key, s)| key.namespace() == namespace && selects(s))
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        keys
    }

    fn given<'a>(
        &self,
        spec: &HorizontalPodAutoscalerSpec,
        pods: &'a [TargetPod],
        replicas: i32,
    ) -> Given<'a> {
        let usual = self.settings.tolerance;
        let rules = spec
            .behavior
            .as_ref()
            .filter(|_| self.settings.own_tolerance);
        let own = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
            let text = &rules?.tolerance.as_ref()?.0;
            text.parse::<meta::Quantity>().ok().map(|q| q.to_f64())
        };
        Given {
            pods,
            replicas,
            tolerance: Tolerance {
                down: own(rules.and_then(|r| r.scale_down.as_ref())).unwrap_or(usual),
                up: own(rules.and_then(|r| r.scale_up.as_ref())).unwrap_or(usual),
            },
            cpu_initialization: self.settings.cpu_initialization,
            initial_readiness: self.settings.initial_readiness,
            now: Timestamp::now(),
        }
    }
}

/// What [`Controller::decide`] has come to.
struct Decided {
    desired: i32,
    /// Why the scale is to be written; `None`: it stays.
    reason: Option<Reason>,
    metrics: Vec<MetricStatus>,
    /// Some metrics could not be read; the others were enough.
    trouble: Option<String>,
}
