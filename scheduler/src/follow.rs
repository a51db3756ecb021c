//! What informers tell goes into the cache and the queue.

use std::collections::HashMap;
use std::sync::Arc;

use client::informer::{Event, Informer, Informers};
use client::{Kind, Object as _, ObjectKey};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use meta::labels::Selector;
use tokio::time::Instant;

use crate::cache::devices::{DeviceEvent, Slice};
use crate::cache::objects::{
    Budget, Namespace, PodDisruptionBudget, ReplicaSet, ReplicationController, Service,
    StatefulSet, Workload,
};
use crate::cache::storage::{
    Attachment, Capacity, Claim, Class, CsiDriver, CsiNode, Storage, StorageEvent, Volume,
};
use crate::framework::ClusterEvent;
use crate::groups::PodGroup;
use crate::model::{Node, Pod, PodInfo};
use crate::scheduler::{Scheduler, State};

impl Scheduler {
    /// Hears of every pod that has not ended and of every node.
    pub fn follow(self: &Arc<Self>, nodes: &Informer<Node>) {
        let this = Arc::clone(self);
        nodes.add_handler(move |event: &Event<Node>| {
            this.node_changed(event);
            this.awaited_changed.notify_waiters();
            this.wake.notify_one();
        });
        let this = Arc::clone(self);
        self.pods.add_handler(move |event: &Event<Pod>| {
            match event {
                Event::Added(pod) => this.pod_changed(pod),
                Event::Updated { old, new } if old.uid() == new.uid() => this.pod_changed(new),
                // One has gone and another of its name has come.
                Event::Updated { old, new } => {
                    this.pod_gone(old);
                    this.pod_changed(new);
                }
                Event::Deleted(pod) => this.pod_gone(pod),
            }
            this.wake.notify_one();
        });
    }

    /// Hears of what plugins ask for beside pods and nodes.
    pub fn follow_objects(self: &Arc<Self>, informers: &Informers) {
        self.follow_kind::<Namespace>(informers, |state, event| match event {
            Event::Deleted(namespace) => {
                state
                    .cache
                    .objects
                    .remove_namespace(&namespace.metadata.name);
            }
            event => {
                if state.cache.objects.put_namespace(event.object()) {
                    // Selectors of namespaces may select others now.
                    state.cache.epoch += 1;
                }
            }
        });
        self.follow_kind::<Service>(informers, |state, event| match event {
            Event::Deleted(service) => state.cache.objects.remove_service(&service.key()),
            Event::Updated { old, new } if old.spec == new.spec => {}
            event => state.cache.objects.put_service(event.key(), event.object()),
        });
        self.follow_workload::<ReplicationController>(
            informers,
            Workload::ReplicationController,
            |rc| Selector::from_set(&rc.spec.selector),
        );
        let of = |selector: &Option<_>| {
            Selector::from_label_selector(selector.as_ref()).unwrap_or_default()
        };
        self.follow_workload::<ReplicaSet>(informers, Workload::ReplicaSet, move |rs| {
            of(&rs.spec.selector)
        });
        self.follow_workload::<StatefulSet>(informers, Workload::StatefulSet, move |set| {
            of(&set.spec.selector)
        });
        self.follow_kind::<PodDisruptionBudget>(informers, |state, event| {
            let budget = event.current().and_then(|budget| Budget::new(budget));
            state.cache.objects.budgets.put(event.key(), budget);
        });
    }

    /// Hears of claims, volumes and what drivers can do.
    pub fn follow_storage(self: &Arc<Self>, informers: &Informers) {
        self.follow_storage_kind::<Claim>(
            informers,
            |s, event| keep(&mut s.claims, event),
            |event| match event {
                Event::Added(claim) => Some(StorageEvent::Claim {
                    key: claim.key(),
                    added: true,
                }),
                Event::Updated { new, .. } => Some(StorageEvent::Claim {
                    key: new.key(),
                    added: false,
                }),
                Event::Deleted(_) => None,
            },
        );
        self.follow_storage_kind::<Volume>(
            informers,
            |s, event| keep(&mut s.volumes, event),
            |event| match event {
                Event::Added(_) => Some(StorageEvent::Volume {
                    added: true,
                    labels: false,
                }),
                Event::Updated { old, new } => {
                    let labels = old.metadata.labels != new.metadata.labels;
                    Some(StorageEvent::Volume {
                        added: false,
                        labels,
                    })
                }
                Event::Deleted(_) => None,
            },
        );
        self.follow_storage_kind::<Class>(
            informers,
            |s, event| keep(&mut s.classes, event),
            |event| {
                let waits =
                    event.object().volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
                match event {
                    Event::Added(_) => Some(StorageEvent::Class {
                        added: true,
                        topologies: true,
                        waits,
                    }),
                    Event::Updated { old, new } => {
                        let topologies = old.allowed_topologies != new.allowed_topologies;
                        Some(StorageEvent::Class {
                            added: false,
                            topologies,
                            waits,
                        })
                    }
                    Event::Deleted(_) => None,
                }
            },
        );
        self.follow_storage_kind::<CsiNode>(
            informers,
            |s, event| keep(&mut s.csi_nodes, event),
            |event| match event {
                Event::Updated { old, new }
                    if old.spec == new.spec && old.migrated() == new.migrated() =>
                {
                    None
                }
                Event::Deleted(_) => None,
                _ => Some(StorageEvent::CsiNode),
            },
        );
        self.follow_storage_kind::<CsiDriver>(
            informers,
            |s, event| keep(&mut s.drivers, event),
            |event| matches!(event, Event::Updated { .. }).then_some(StorageEvent::CsiDriver),
        );
        self.follow_storage_kind::<Capacity>(
            informers,
            |s, event| keep(&mut s.capacities, event),
            |event| (!matches!(event, Event::Deleted(_))).then_some(StorageEvent::Capacity),
        );
        self.follow_storage_kind::<Attachment>(
            informers,
            |s, event| {
                if let Some(old) = event.previous() {
                    s.attachments.remove(old);
                }
                if let Some(attachment) = event.current() {
                    s.attachments.put(attachment);
                }
            },
            |event| matches!(event, Event::Deleted(_)).then_some(StorageEvent::Attachment),
        );
    }

    /// Hears of claims of devices, their classes, and what drivers publish.
    pub fn follow_devices(self: &Arc<Self>, informers: &Informers) {
        let this = Arc::clone(self);
        let claims = informers.get::<ResourceClaim>();
        claims.add_handler(move |event: &Event<ResourceClaim>| {
            match event.current() {
                Some(claim) => this.claim_changed(claim),
                None => this.lock().cache.devices.remove_claim(&event.key()),
            }
            this.awaited_changed.notify_waiters();
            this.wake.notify_one();
        });
        let this = Arc::clone(self);
        let classes = informers.get::<DeviceClass>();
        classes.add_handler(move |event: &Event<DeviceClass>| {
            let mut guard = this.lock();
            let state = &mut *guard;
            // What extended resources stand for has changed.
            state.cache.epoch += 1;
            let Some(class) = event.current() else {
                state.cache.devices.remove_class(event.key().name());
                return;
            };
            state.cache.devices.put_class(class);
            let added = matches!(event, Event::Added(_));
            let event = DeviceEvent::Class { added };
            this.happened(state, &ClusterEvent::Devices(&event));
            drop(guard);
            this.wake.notify_one();
        });
        let this = Arc::clone(self);
        let slices = informers.get::<ResourceSlice>();
        slices.add_handler(move |event: &Event<ResourceSlice>| {
            let mut guard = this.lock();
            let state = &mut *guard;
            let Some(slice) = event.current() else {
                state.cache.devices.remove_slice(event.key().name());
                return;
            };
            state.cache.devices.put_slice(Slice::new(slice));
            let added = matches!(event, Event::Added(_));
            let event = DeviceEvent::Slice { added };
            this.happened(state, &ClusterEvent::Devices(&event));
            drop(guard);
            this.wake.notify_one();
        });
    }

    /// Hears of groups that pods are scheduled with.
    pub fn follow_groups(self: &Arc<Self>, informers: &Informers) {
        let this = Arc::clone(self);
        let groups = informers.get::<PodGroup>();
        groups.add_handler(move |event: &Event<PodGroup>| {
            let mut guard = this.lock();
            let state = &mut *guard;
            this.members_change(
                state,
                Some(&event.key()),
                "PodGroupAdd",
                |state| match event.current() {
                    Some(group) => state.cache.groups.put_object(Arc::clone(group)),
                    None => state.cache.groups.remove_object(&event.key()),
                },
            );
            drop(guard);
            this.wake.notify_one();
        });
    }

    /// Something happens to a group or to its pods that may complete it; those of its pods
    /// that have waited for that are let in.
    fn members_change(
        &self,
        state: &mut State,
        group: Option<&ObjectKey>,
        event: &'static str,
        change: impl FnOnce(&mut State),
    ) {
        let Some(group) = group else {
            return change(state);
        };
        let before = state.cache.groups.is_ready(group);
        change(state);
        if before || !state.cache.groups.is_ready(group) {
            return;
        }
        let State { cache, queue, .. } = state;
        for key in cache.groups.waiting(group) {
            let admitted = queue.get(key).is_some_and(|pod| {
                let profile = self.profile(pod);
                profile.is_some_and(|profile| profile.admit(pod, cache).is_ok())
            });
            if admitted {
                queue.admit(key, event);
            }
        }
    }

    /// A version of a claim, told by the API server or its answer to a write.
    pub(crate) fn claim_changed(&self, claim: &Arc<ResourceClaim>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (old, kept) = state.cache.devices.put_claim(claim);
        if !kept {
            return;
        }
        let old = old.filter(|old| old.uid() == claim.uid());
        let event = DeviceEvent::Claim {
            old,
            new: Arc::clone(claim),
        };
        self.happened(state, &ClusterEvent::Devices(&event));
        // Pods may have waited for it to be there.
        let State { cache, queue, .. } = state;
        let admitted: Vec<ObjectKey> = queue
            .gated()
            .filter(|pod| !pod.claims.is_empty() && pod.key.namespace() == claim.namespace())
            .filter(|pod| {
                let profile = self.profile(pod);
                profile.is_some_and(|profile| profile.admit(pod, cache).is_ok())
            })
            .map(|pod| pod.key.clone())
            .collect();
        for key in admitted {
            queue.admit(&key, event.label());
        }
    }

    fn follow_storage_kind<K: Kind>(
        self: &Arc<Self>,
        informers: &Informers,
        put: fn(&mut Storage, &Event<K>),
        told: fn(&Event<K>) -> Option<StorageEvent>,
    ) {
        let this = Arc::clone(self);
        let informer = informers.get::<K>();
        informer.add_handler(move |event: &Event<K>| {
            let mut guard = this.lock();
            let state = &mut *guard;
            put(&mut state.cache.storage, event);
            if let Some(event) = told(event) {
                this.happened(state, &ClusterEvent::Storage(&event));
            }
            drop(guard);
            this.awaited_changed.notify_waiters();
            this.wake.notify_one();
        });
    }

    fn follow_kind<K: Kind>(
        self: &Arc<Self>,
        informers: &Informers,
        handle: impl Fn(&mut State, &Event<K>) + Send + Sync + 'static,
    ) {
        let this = Arc::clone(self);
        let informer = informers.get::<K>();
        informer.add_handler(move |event: &Event<K>| handle(&mut this.lock(), event));
    }

    fn follow_workload<K: Kind>(
        self: &Arc<Self>,
        informers: &Informers,
        workload: Workload,
        selector: impl Fn(&K) -> Selector + Send + Sync + 'static,
    ) {
        self.follow_kind::<K>(informers, move |state, event| {
            let objects = &mut state.cache.objects;
            match event {
                Event::Deleted(object) => objects.remove_workload(workload, &object.key()),
                Event::Updated { old, new } if selector(old) == selector(new) => {}
                event => objects.put_workload(workload, event.key(), selector(event.object())),
            }
        });
    }

    pub(crate) fn pod_changed(&self, pod: &Pod) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let key = pod.key();
        let before = state.queue.get(&key).or_else(|| state.cache.pod(&key));
        let info = state.templates.version(pod, before.map(|before| &**before));
        if info.terminal {
            return self.gone(state, &key, &info.uid, info.group.as_ref());
        }
        if info.is_assigned() {
            let group = info.group.clone();
            self.members_change(state, group.as_ref(), "AssignedPodAdd", |state| {
                self.pod_assigned(state, info);
            });
        } else if let Some(assumed) = state.cache.pod(&info.key) {
            // It may still be bound, but what it uses is free as soon as it is deleted.
            if info.deleting {
                let assumed = Arc::clone(assumed);
                state.in_pre_bind.call_off(&assumed.uid);
                state.cache.remove_pod(&info.key);
                state.cache.groups.wait(&assumed);
                self.happened(state, &ClusterEvent::PodGone(&assumed));
            }
        } else if info.deleting {
            self.forget_waiting(state, &info.key);
        } else if let Some(profile) = self.profile(&info) {
            self.nominated(state, &info);
            let group = info.group.clone();
            self.members_change(state, group.as_ref(), "UnschedulablePodAdd", |state| {
                let State { cache, queue, .. } = state;
                cache.groups.wait(&info);
                let admitted = profile.admit(&info, cache).is_ok();
                let new = Arc::clone(&info);
                queue.put(info, admitted, Instant::now(), |old, rejectors| {
                    profile.helps(&new, rejectors, &ClusterEvent::PodChanged { old }, cache)
                });
            });
        }
    }

    fn pod_assigned(&self, state: &mut State, info: Arc<PodInfo>) {
        state.queue.remove(&info.key);
        state.cache.denominate(&info.key);
        let before = match state.cache.is_assumed(&info.key) {
            true => None,
            false => state.cache.pod(&info.key).cloned(),
        };
        state.cache.put_pod(Arc::clone(&info));
        match before {
            None => self.happened(state, &ClusterEvent::PodAdded(&info)),
            Some(old) if old.template.id != info.template.id => {
                let event = ClusterEvent::PodUpdated {
                    old: &old,
                    new: &info,
                };
                self.happened(state, &event);
            }
            Some(_) => {}
        }
    }

    /// Follows `status.nominatedNodeName` of a waiting pod.
    fn nominated(&self, state: &mut State, info: &Arc<PodInfo>) {
        let old = state.queue.get(&info.key).cloned();
        let was = old.as_ref().map_or("", |old| &*old.nominated);
        let kept = state.cache.nomination(&info.key).map(str::to_owned);
        if !info.nominated.is_empty() {
            state.cache.nominate(info, &info.nominated);
        } else if was.is_empty() {
            // What was nominated here has not been written yet.
            if let Some(node) = kept {
                state.cache.nominate(info, &node);
            }
        } else {
            state.cache.denominate(&info.key);
        }
        if let Some(old) = &old
            && !was.is_empty()
            && was != &*info.nominated
        {
            self.happened(state, &ClusterEvent::PodGone(old));
        }
    }

    fn forget_waiting(&self, state: &mut State, key: &ObjectKey) {
        let nominated = state.cache.denominate(key).is_some();
        if let Some(pod) = state.queue.remove(key)
            && nominated
        {
            self.happened(state, &ClusterEvent::PodGone(&pod));
        }
    }

    fn pod_gone(&self, pod: &Pod) {
        let mut state = self.lock();
        self.gone(&mut state, &pod.key(), pod.uid(), pod.group().as_ref());
    }

    /// `group` is what the pod was a member of.
    fn gone(&self, state: &mut State, key: &ObjectKey, uid: &str, group: Option<&ObjectKey>) {
        state.in_pre_bind.call_off(uid);
        self.forget_waiting(state, key);
        if let Some(placed) = state.cache.pod(key).cloned() {
            state.cache.remove_pod(key);
            self.happened(state, &ClusterEvent::PodGone(&placed));
        }
        if let Some(group) = group {
            state.cache.groups.remove(group, key);
        }
    }

    pub(crate) fn node_changed(&self, event: &Event<Node>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        match event {
            Event::Added(node) => {
                state.cache.put_node(node);
                self.happened(state, &ClusterEvent::NodeAdded(node));
            }
            Event::Updated { old, new } if !old.looks_like(new) => {
                state.cache.put_node(new);
                self.happened(state, &ClusterEvent::NodeUpdated { old, new });
            }
            Event::Updated { .. } => {}
            Event::Deleted(node) => {
                state.cache.remove_node(&node.metadata.name);
                self.happened(state, &ClusterEvent::NodeGone(node));
            }
        }
    }
}

/// Keeps a table as the API server has it.
fn keep<K: Kind>(table: &mut HashMap<ObjectKey, Arc<K>>, event: &Event<K>) {
    match event.current() {
        Some(object) => table.insert(event.key(), Arc::clone(object)),
        None => table.remove(&event.key()),
    };
}
