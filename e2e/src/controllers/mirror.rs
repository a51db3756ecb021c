//! All objects of a stand as a watch tells of them, with what has been: names of uids that
//! are gone, events in order, how many pods an owner had at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use tokio::sync::watch;

use super::kinds::{KINDS, Kind};
use crate::stand::Endpoint;
use crate::stand::watch::Changes;

/// An object that is or was.
#[derive(Debug, Clone)]
pub struct Known {
    pub kind: &'static str,
    pub name: String,
    pub namespace: String,
    /// What the API server made the name from, if it did.
    pub generate_name: Option<String>,
    /// Hash in its labels by which a controller names it, and the owner's name.
    pub hash: Option<(String, String)>,
    pub pod_ip: Option<String>,
}

/// What is known of one scenario's objects: those whose namespace, or name where they have
/// none, begins with the scenario's.
#[derive(Debug, Default)]
struct Scope {
    objects: BTreeMap<(&'static str, String, String), Arc<Value>>,
    /// In order of first sight.
    known: Vec<(String, Known)>,
    /// Events in order of first sight, as they were last.
    events: Vec<(String, Arc<Value>)>,
    /// Most pods of an owner that were active at once.
    peaks: BTreeMap<String, usize>,
    changed: Option<Instant>,
}

/// The mirror of one stand.
pub struct Mirror {
    scopes: Mutex<HashMap<String, Scope>>,
    signals: Mutex<HashMap<String, watch::Sender<u64>>>,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("")
}

/// Scenarios are told apart by what stands before the first dash.
fn scope_of(kind: &Kind, object: &Value) -> String {
    let namespace = match kind.name {
        "Event" => text(object, "/involvedObject/namespace"),
        _ => text(object, "/metadata/namespace"),
    };
    let name = match kind.name {
        "Event" => text(object, "/involvedObject/name"),
        "VolumeAttachment" => text(object, "/spec/nodeName"),
        // After the name of its signer.
        "ClusterTrustBundle" => {
            let name = text(object, "/metadata/name");
            name.rsplit(':').next().unwrap_or_default()
        }
        _ => text(object, "/metadata/name"),
    };
    let all = if namespace.is_empty() || namespace == "default" {
        name
    } else {
        namespace
    };
    all.split('-').next().unwrap_or_default().to_owned()
}

fn known(kind: &Kind, object: &Value) -> Known {
    let name = text(object, "/metadata/name").to_owned();
    let generate_name = match kind.name {
        // Made of a hash of volume and node.
        "VolumeAttachment" => "csi-",
        _ => text(object, "/metadata/generateName"),
    };
    let label = |key: &str| {
        let labels = object.pointer("/metadata/labels")?;
        labels.get(key)?.as_str().map(str::to_owned)
    };
    let hash = match kind.name {
        "ReplicaSet" => label("pod-template-hash"),
        "ControllerRevision" => label("controller.kubernetes.io/hash")
            .or_else(|| label("controller-revision-hash"))
            .map(|h| h.rsplit('-').next().unwrap_or_default().to_owned()),
        _ => None,
    };
    let owner = text(object, "/metadata/ownerReferences/0/name").to_owned();
    let pod_ip = text(object, "/status/podIP");
    Known {
        kind: kind.name,
        name,
        namespace: text(object, "/metadata/namespace").to_owned(),
        generate_name: (!generate_name.is_empty()).then(|| generate_name.to_owned()),
        hash: hash.map(|h| (h, owner)),
        pod_ip: (!pod_ip.is_empty()).then(|| pod_ip.to_owned()),
    }
}

/// Neither ended nor told to end.
pub fn is_active(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_none()
        && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

impl Mirror {
    /// Follows every kind that the server has.
    ///
    /// # Errors
    ///
    /// When one that it has cannot be listed.
    pub async fn follow(endpoint: &Endpoint) -> Result<Arc<Self>> {
        let mirror = Arc::new(Self {
            scopes: Mutex::default(),
            signals: Mutex::default(),
        });
        for kind in KINDS {
            let (items, mut changes) =
                Changes::list_and_follow(endpoint, &kind.collection()).await?;
            for item in items {
                mirror.tell(kind, "ADDED", item);
            }
            let mirror = Arc::downgrade(&mirror);
            tokio::spawn(async move {
                while let Ok((what, object)) = changes.next_at_all().await {
                    let Some(mirror) = mirror.upgrade() else {
                        return;
                    };
                    mirror.tell(kind, &what, object);
                }
            });
        }
        Ok(mirror)
    }

    fn tell(&self, kind: &'static Kind, what: &str, object: Value) {
        let scope_name = scope_of(kind, &object);
        {
            let mut scopes = self.scopes.lock().expect("no panic under the lock");
            let scope = scopes.entry(scope_name.clone()).or_default();
            scope.tell(kind, what, object);
        }
        self.signal(&scope_name).send_modify(|n| *n += 1);
    }

    fn signal(&self, scope: &str) -> watch::Sender<u64> {
        let mut signals = self.signals.lock().expect("no panic under the lock");
        let signal = signals.entry(scope.to_owned());
        signal.or_insert_with(|| watch::channel(0).0).clone()
    }

    /// Changes whenever something of a scope does.
    pub fn changes(&self, scope: &str) -> watch::Receiver<u64> {
        self.signal(scope).subscribe()
    }

    fn with<T>(&self, scope: &str, read: impl FnOnce(&Scope) -> T) -> T {
        let scopes = self.scopes.lock().expect("no panic under the lock");
        match scopes.get(scope) {
            Some(scope) => read(scope),
            None => read(&Scope::default()),
        }
    }

    /// One object.
    pub fn get(&self, scope: &str, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let kind = Kind::named(kind).name;
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.with(scope, |s| s.objects.get(&key).cloned())
    }

    /// All objects of a kind, by namespace and name.
    pub fn list(&self, scope: &str, kind: &str) -> Vec<Arc<Value>> {
        let is = |(key, object): (&(&str, String, String), &Arc<Value>)| {
            (key.0 == kind).then(|| Arc::clone(object))
        };
        self.with(scope, |s| s.objects.iter().filter_map(is).collect())
    }

    /// All objects but events, with their kinds.
    pub fn all(&self, scope: &str) -> Vec<(&'static str, Arc<Value>)> {
        self.with(scope, |s| {
            let objects = s.objects.iter();
            objects.map(|(key, o)| (key.0, Arc::clone(o))).collect()
        })
    }

    pub fn events(&self, scope: &str) -> Vec<Arc<Value>> {
        self.with(scope, |s| {
            s.events.iter().map(|(_, e)| Arc::clone(e)).collect()
        })
    }

    pub fn known(&self, scope: &str) -> Vec<(String, Known)> {
        self.with(scope, |s| s.known.clone())
    }

    /// How many pods an owner (`Kind/name`) had at the most that were active.
    pub fn peaks(&self, scope: &str) -> BTreeMap<String, usize> {
        self.with(scope, |s| s.peaks.clone())
    }

    /// How long nothing has changed.
    pub fn quiet(&self, scope: &str) -> Duration {
        self.with(scope, |s| {
            s.changed.map_or(Duration::MAX, |at| at.elapsed())
        })
    }

    /// Drops what is known of a scenario that has ended.
    pub fn forget(&self, scope: &str) {
        let mut scopes = self.scopes.lock().expect("no panic under the lock");
        scopes.remove(scope);
    }
}

impl Scope {
    fn tell(&mut self, kind: &'static Kind, what: &str, object: Value) {
        self.changed = Some(Instant::now());
        let uid = text(&object, "/metadata/uid").to_owned();
        let object = Arc::new(object);
        if kind.name == "Event" {
            match self.events.iter_mut().find(|(known, _)| *known == uid) {
                Some((_, event)) if what != "DELETED" => *event = object,
                Some(_) => {}
                None => self.events.push((uid, object)),
            }
            return;
        }
        let known = known(kind, &object);
        match self.known.iter_mut().find(|(of, _)| *of == uid) {
            // A pod gets its address later.
            Some((_, had)) => had.pod_ip = known.pod_ip.clone().or(had.pod_ip.take()),
            None => self.known.push((uid, known)),
        }
        let name = |path| text(&object, path).to_owned();
        let key = (
            kind.name,
            name("/metadata/namespace"),
            name("/metadata/name"),
        );
        let owner = (kind.name == "Pod").then(|| {
            let owner = "/metadata/ownerReferences/0";
            let part = |of: &str| text(&object, &format!("{owner}/{of}")).to_owned();
            (part("kind"), part("name"), part("uid"))
        });
        if what == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object);
        }
        if let Some((kind, name, uid)) = owner
            && !uid.is_empty()
        {
            let is =
                |pod: &Value| is_active(pod) && text(pod, "/metadata/ownerReferences/0/uid") == uid;
            let pods = self.objects.iter().filter(|((kind, ..), _)| *kind == "Pod");
            let active = pods.filter(|(_, pod)| is(pod)).count();
            let peak = self.peaks.entry(format!("{kind}/{name}")).or_default();
            *peak = active.max(*peak);
        }
    }
}
