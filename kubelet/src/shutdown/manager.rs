//! *Apply*: has logind wait, ends the pods when the machine goes down, and lets logind go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zbus::zvariant::OwnedFd;

use super::plan::{Group, Periods};
use super::record::Record;
use crate::event::Event;
use crate::events::{Events, Kind};
use crate::metrics::Metrics;
use crate::node_status::facts::NodeFacts;
use crate::pods::active::ActivePods;
use crate::pods::dirs::Root;
use crate::pods::ending::Ending;
use crate::pods::pod::PodExt;
use crate::status::Eviction;
use crate::systemd::{Logind, set_delay};

/// Where logind looks for changes of its configuration.
const CONFIGURATION: &str = "/etc/systemd/logind.conf.d";

/// Between two attempts to reach logind: the first pause, which doubles, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// logind answers before it has read its configuration again. It is asked as often, at first after
/// this pause, which doubles.
const LOOKS: (u32, Duration) = (5, Duration::from_millis(100));

/// Ends the node's pods before the machine goes down.
pub struct Manager {
    pub periods: Periods,
    pub active: ActivePods,
    pub facts: Arc<NodeFacts>,
    pub events: Arc<Events>,
    pub metrics: Arc<Metrics>,
    pub root: Root,
    pub told: mpsc::UnboundedSender<Event>,
    /// Woken when the node begins to go down, and when that is called off.
    pub node_changed: Arc<Notify>,
}

impl Manager {
    /// Runs until `stop`. Without logind nothing is lost but the pods' time to end.
    pub async fn run(self, stop: CancellationToken) {
        Record::new(self.root.path()).show(&self.metrics);
        let watch = async {
            let (mut pause, longest) = RETRY;
            loop {
                let connected = Logind::connect().await.context("cannot reach logind");
                let ended = match connected {
                    Ok(logind) => self.watch(&logind, CONFIGURATION.into()).await,
                    Err(error) => Err(error),
                };
                match ended {
                    Ok(()) => {
                        warn!("logind cannot be heard any more");
                        pause = RETRY.0;
                    }
                    Err(error) => {
                        warn!("the node's shutdown cannot be watched for yet: {error:#}");
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        };
        stop.run_until_cancelled(watch).await;
    }

    /// Has logind wait, and listens to it until it cannot be heard any more.
    async fn watch(&self, logind: &Logind, configuration: PathBuf) -> anyhow::Result<()> {
        self.ask_for_time(logind, configuration).await?;
        // Whoever is told must have been listening when logind began to wait.
        let mut shutdowns = logind.shutdowns().await?;
        let mut inhibitor = Some(logind.inhibit().await?);
        info!(time = ?self.periods.total(), "pods are ended before the machine goes down");
        while let Some(begins) = shutdowns.next().await {
            self.facts.update(|facts| facts.shutting_down = begins);
            self.node_changed.notify_one();
            let what = if begins { "event" } else { "cancellation" };
            let message = format!("Shutdown manager detected shutdown {what}");
            self.events.node(Kind::Normal, "Shutdown", &message);
            if begins {
                self.end_pods(inhibitor.take()).await;
            } else {
                let again = logind.inhibit().await;
                inhibitor = Some(again.context("cannot have logind wait again")?);
            }
        }
        Ok(())
    }

    /// Has logind wait for as long as the pods may take.
    async fn ask_for_time(&self, logind: &Logind, configuration: PathBuf) -> anyhow::Result<()> {
        let wanted = self.periods.total();
        if logind.delay().await? >= wanted {
            return Ok(());
        }
        let written = set_delay(&configuration, wanted);
        written.with_context(|| format!("cannot change what {configuration:?} says"))?;
        logind.reload().await.context("cannot reload logind")?;
        let (looks, mut pause) = LOOKS;
        for _ in 0..looks {
            if logind.delay().await? >= wanted {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let delay = logind.delay().await?;
        anyhow::bail!(
            "logind waits for {delay:?}, not for {wanted:?}: something overrides InhibitDelayMaxSec of {}",
            configuration.display()
        )
    }

    /// Ends all pods, one group after the other; then the machine may go down.
    async fn end_pods(&self, inhibitor: Option<OwnedFd>) {
        let record = Record::new(self.root.path());
        let start = Timestamp::now();
        record.write(&self.metrics, start, None);
        for group in self.periods.groups(self.active.all()) {
            let time = group.time;
            if tokio::time::timeout(time, self.end(group)).await.is_err() {
                warn!(?time, "not all pods have ended in time");
            }
        }
        record.write(&self.metrics, start, Some(Timestamp::now()));
        info!("all pods have had their time: the machine may go down");
        drop(inhibitor);
    }

    async fn end(&self, group: Group) {
        let begin = |(pod, grace): (_, i64)| {
            let ending = Ending::begin(&self.told, pod, Eviction::shut_down(), grace);
            info!(pod = %ending.pod.full_name(), grace, "ending a pod: the machine goes down");
            ending
        };
        let endings: Vec<Ending> = group.pods.into_iter().map(begin).collect();
        let wait = async |mut ending: Ending| {
            ending.stopped(&self.events).await;
            // Whoever mounts volumes may be in a later group.
            ending.cleared().await;
        };
        join_all(endings.into_iter().map(wait)).await;
    }
}

#[cfg(test)]
mod tests {
    use component::features::FeatureGates;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::node_status::facts::Facts;
    use crate::pods::index::PodIndex;
    use crate::pods::pod::PodUid;
    use crate::pods::worker::Phase;
    use crate::status::StatusManager;
    use crate::systemd::fake::Machine;

    async fn until(what: &str, is: impl Fn() -> bool) {
        let seen = async {
            while !is() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(30), seen).await;
        seen.unwrap_or_else(|_| panic!("{what}"));
    }

    fn manager(root: &std::path::Path, told: mpsc::UnboundedSender<Event>) -> Manager {
        let index = Arc::new(PodIndex::default());
        for (name, priority) in [("web", 0), ("dns", 2_000_000_000)] {
            let metadata = json!({"name": name, "namespace": "n", "uid": name});
            let spec = json!({"containers": [], "priority": priority, "terminationGracePeriodSeconds": 15});
            let pod: Pod =
                serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            index.set(Arc::new(pod));
            index.set_may_run(&PodUid::from(name), true);
        }
        let config =
            json!({"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"});
        let config = serde_json::from_value(config).unwrap();
        let gates = FeatureGates::from_pairs(&Default::default()).unwrap();
        Manager {
            periods: Periods::new(&config, &gates).unwrap(),
            active: ActivePods {
                index: index.clone(),
                status: Arc::new(StatusManager::new(index)),
            },
            facts: Arc::new(NodeFacts::new(Facts::default())),
            events: Arc::new(Events::new(None, "n")),
            metrics: Arc::new(Metrics::new("n", true).unwrap()),
            root: Root::new(root),
            told,
            node_changed: Arc::default(),
        }
    }

    #[tokio::test]
    async fn pods_end_before_the_machine_goes_down() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::start().await;
        let configuration = root.path().join("logind.conf.d");
        machine.configure(configuration.clone());
        let (told, mut heard) = mpsc::unbounded_channel();
        let manager = manager(root.path(), told);
        let (facts, metrics) = (manager.facts.clone(), manager.metrics.clone());
        let logind = Logind::over(&machine.connection).await.unwrap();
        let watch = tokio::spawn(async move { manager.watch(&logind, configuration).await });

        let why = "Kubelet needs time to handle node shutdown";
        until("an inhibitor", || machine.inhibitors().len() == 1).await;
        assert_eq!(
            machine.inhibitors()[0],
            ["shutdown", "kubelet", why, "delay"]
        );
        let written = root.path().join("logind.conf.d/99-kubelet.conf");
        let written = std::fs::read_to_string(written).unwrap();
        assert!(written.ends_with("[Login]\nInhibitDelayMaxSec=30\n"));

        machine.shut_down(true).await;
        for (name, seconds) in [("web", 15), ("dns", 10)] {
            let Some(Event::Evict {
                uid,
                eviction,
                grace,
                ended,
            }) = heard.recv().await
            else {
                panic!("a pod is to end");
            };
            assert_eq!((&*uid, grace), (name, seconds));
            assert_eq!(eviction, Eviction::shut_down());
            assert!(facts.get().shutting_down);
            assert_eq!(machine.inhibitors().len(), 1);
            ended.send_replace(Phase::Terminated);
            // The next group waits for the volumes as well.
            tokio::task::yield_now().await;
            assert!(heard.try_recv().is_err());
            ended.send_replace(Phase::Finished);
        }
        until("the machine may go down", || {
            machine.inhibitors().is_empty()
        })
        .await;
        let (start, end) = (metrics.shutdown_start.get(), metrics.shutdown_end.get());
        assert!(start > 0 && end >= start);

        machine.shut_down(false).await;
        until("an inhibitor again", || machine.inhibitors().len() == 1).await;
        assert!(!facts.get().shutting_down);
        drop(machine);
        watch.await.unwrap().unwrap();
    }
}
