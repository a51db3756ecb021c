//! Which volumes of one node are to be attached, reported and detached: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::ObjectKey;

use super::volume::{Attachable, is_disk};

/// How long a node that is not well may keep a volume mounted that nobody wants there.
pub const UNMOUNT: Duration = Duration::from_secs(6 * 60);

/// A volume that pods of a node want attached.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub volume: Attachable,
    pub pods: Vec<ObjectKey>,
}

/// That a volume is attached to the node, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The VolumeAttachment. A disk has none: that the node's status names it is all there is.
    pub name: Option<String>,
    pub attached: bool,
    pub deleting: bool,
}

/// What is known of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// What its kubelet has mounted, or is about to.
    pub in_use: BTreeSet<String>,
    /// What its status says is attached, of volumes that are attached here.
    pub reported: Vec<String>,
    pub ready: bool,
    pub out_of_service: bool,
    /// The node is gone: nothing more is mounted there, and the rest is what was last known.
    pub gone: bool,
}

/// A volume to detach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detach {
    pub volume: String,
    /// `None`: it is detached once the node's status does not name it.
    pub attachment: Option<String>,
    /// Without asking the node once more.
    pub force: bool,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the node's status is to say, if it says otherwise.
    pub report: Option<Vec<String>>,
    /// Among them those that pods have waited for.
    pub ready: Vec<String>,
    pub detach: Vec<Detach>,
    /// By drivers.
    pub attach: Vec<String>,
    /// Another node has these.
    pub taken: Vec<String>,
    /// When to look again at what is still mounted.
    pub wait: Option<Duration>,
    /// What is not wanted any more: the time that [`UNMOUNT`] is counted from runs.
    pub unwanted: BTreeSet<String>,
}

/// Plans for one node. `attachments` are by the volume's unique name; `elsewhere` says whether
/// a volume that only one node may have is attached, or about to be, to another node; `waited` how long it has been known
/// that nobody wants one, which `force` allows to matter.
pub fn plan(
    wanted: &BTreeMap<String, Wanted>,
    attachments: &BTreeMap<String, Attachment>,
    node: &Node,
    elsewhere: impl Fn(&str) -> bool,
    waited: impl Fn(&str) -> Duration,
    force: bool,
) -> Plan {
    let mut plan = Plan::default();
    let mut report: BTreeSet<&str> = BTreeSet::new();
    let disk = Attachment {
        name: None,
        attached: true,
        deleting: false,
    };
    let disks = node.reported.iter().filter(|name| is_disk(name));
    let mut there: BTreeMap<&String, &Attachment> = disks.map(|name| (name, &disk)).collect();
    there.extend(attachments);
    for (&name, &attachment) in &there {
        if wanted.contains_key(name) {
            if attachment.attached && !attachment.deleting {
                report.insert(name);
            }
            continue;
        }
        if attachment.deleting {
            continue;
        }
        plan.unwanted.insert(name.clone());
        let waited = waited(name);
        let expired = force && waited >= UNMOUNT;
        let forced = expired && !node.ready || node.out_of_service;
        let mounted = node.in_use.contains(name);
        if mounted && !forced {
            report.extend(attachment.attached.then_some(name.as_str()));
            if force && !node.ready {
                let left = UNMOUNT.saturating_sub(waited);
                plan.wait = Some(plan.wait.map_or(left, |wait| wait.min(left)));
            }
            continue;
        }
        plan.detach.push(Detach {
            volume: name.clone(),
            attachment: attachment.name.clone(),
            force: forced || node.gone,
        });
    }
    for (name, Wanted { volume, .. }) in wanted {
        if there.contains_key(name) || node.gone {
            continue;
        }
        if !volume.shared && elsewhere(name) {
            plan.taken.push(name.clone());
        } else if volume.driver.is_some() {
            plan.attach.push(name.clone());
        } else {
            report.insert(name);
        }
    }
    let before: BTreeSet<&str> = node.reported.iter().map(String::as_str).collect();
    if before != report && !node.gone {
        let new = report.difference(&before);
        plan.ready = new.map(|name| (*name).to_owned()).collect();
        plan.report = Some(report.into_iter().map(str::to_owned).collect());
    }
    plan
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::storage::v1::VolumeAttachmentSource;

    use super::super::volume::Driver;
    use super::*;

    fn wanted(names: &[&str]) -> BTreeMap<String, Wanted> {
        let of = |name: &&str| {
            let driver = Driver {
                name: "d".to_owned(),
                handle: (*name).to_owned(),
                source: VolumeAttachmentSource::default(),
            };
            let wanted = Wanted {
                volume: Attachable {
                    unique: (*name).to_owned(),
                    name: (*name).to_owned(),
                    driver: (!is_disk(name)).then_some(driver),
                    shared: false,
                },
                pods: Vec::new(),
            };
            ((*name).to_owned(), wanted)
        };
        names.iter().map(of).collect()
    }

    fn attached(all: &[(&str, bool, bool)]) -> BTreeMap<String, Attachment> {
        let of = |(name, attached, deleting): &(&str, bool, bool)| {
            let attachment = Attachment {
                name: Some(format!("csi-{name}")),
                attached: *attached,
                deleting: *deleting,
            };
            ((*name).to_owned(), attachment)
        };
        all.iter().map(of).collect()
    }

    fn node(in_use: &[&str], reported: &[&str], ready: bool) -> Node {
        Node {
            in_use: in_use.iter().map(|n| (*n).to_owned()).collect(),
            reported: reported.iter().map(|n| (*n).to_owned()).collect(),
            ready,
            ..Node::default()
        }
    }

    fn planned(
        names: &[&str],
        there: &[(&str, bool, bool)],
        node: &Node,
        waited: Duration,
    ) -> Plan {
        plan(
            &wanted(names),
            &attached(there),
            node,
            |_| false,
            |_| waited,
            true,
        )
    }

    #[test]
    fn a_wanted_volume_is_attached_then_reported() {
        let n = node(&[], &[], true);
        let first = planned(&["v"], &[], &n, Duration::ZERO);
        assert_eq!((first.attach, first.report), (vec!["v".to_owned()], None));
        // The driver is at it.
        assert_eq!(
            planned(&["v"], &[("v", false, false)], &n, Duration::ZERO),
            Plan::default()
        );
        let done = planned(&["v"], &[("v", true, false)], &n, Duration::ZERO);
        assert_eq!(done.report, Some(vec!["v".to_owned()]));
        assert_eq!(done.ready, ["v"]);
        let told = node(&[], &["v"], true);
        assert_eq!(
            planned(&["v"], &[("v", true, false)], &told, Duration::ZERO),
            Plan::default()
        );
    }

    #[test]
    fn an_unwanted_volume_is_detached_once_it_is_unmounted() {
        let there = [("v", true, false)];
        let mounted = planned(&[], &there, &node(&["v"], &["v"], true), UNMOUNT);
        assert!(mounted.detach.is_empty() && mounted.report.is_none());
        let free = planned(&[], &there, &node(&[], &["v"], true), Duration::ZERO);
        assert_eq!(free.report, Some(Vec::new()));
        assert_eq!(free.detach.len(), 1);
        assert!(!free.detach[0].force);
    }

    #[test]
    fn a_dead_node_loses_its_volumes_in_the_end() {
        let there = [("v", true, false)];
        let sick = node(&["v"], &["v"], false);
        let soon = planned(&[], &there, &sick, UNMOUNT / 2);
        assert!(soon.detach.is_empty());
        assert_eq!(soon.wait, Some(UNMOUNT / 2));
        assert!(planned(&[], &there, &sick, UNMOUNT).detach[0].force);
        let never = plan(
            &wanted(&[]),
            &attached(&there),
            &sick,
            |_| false,
            |_| UNMOUNT,
            false,
        );
        assert!(never.detach.is_empty());
        let out = Node {
            out_of_service: true,
            ..sick.clone()
        };
        assert!(planned(&[], &there, &out, Duration::ZERO).detach[0].force);
        // Its machine may run on.
        let gone = Node { gone: true, ..sick };
        let soon = planned(&[], &there, &gone, UNMOUNT / 2);
        assert!(soon.detach.is_empty() && soon.wait == Some(UNMOUNT / 2));
        let late = planned(&[], &there, &gone, UNMOUNT);
        assert!(late.report.is_none() && late.detach[0].force);
        let free = Node {
            in_use: BTreeSet::new(),
            ..gone
        };
        let plan = planned(&[], &there, &free, Duration::ZERO);
        assert!(plan.report.is_none() && plan.detach[0].force);
    }

    #[test]
    fn a_volume_of_one_node_waits_for_the_other() {
        let n = node(&[], &[], true);
        let there = plan(
            &wanted(&["v"]),
            &attached(&[]),
            &n,
            |_| true,
            |_| Duration::ZERO,
            true,
        );
        assert_eq!(there.taken, ["v"]);
        assert!(there.attach.is_empty());
        let mut shared = wanted(&["v"]);
        shared.get_mut("v").unwrap().volume.shared = true;
        let both = plan(
            &shared,
            &attached(&[]),
            &n,
            |_| true,
            |_| Duration::ZERO,
            true,
        );
        assert_eq!(both.attach, ["v"]);
        // What is being detached here must be gone before it comes back.
        let going = planned(&["v"], &[("v", true, true)], &n, Duration::ZERO);
        assert_eq!(going, Plan::default());
    }

    #[test]
    fn disks_are_attached_by_the_nodes_status_alone() {
        const DISK: &str = "kubernetes.io/iscsi/p:i:0";
        const OTHER: &str = "kubernetes.io/fc/[a]:0";
        let none = || Some(Vec::new());
        let one = || Some(vec![DISK.to_owned()]);
        let both = || Some(vec![OTHER.to_owned(), DISK.to_owned()]);
        // What pods want, what the kubelet has, what the status says; and what it is to say.
        type Row<'a> = (
            &'a [&'a str],
            &'a [&'a str],
            &'a [&'a str],
            Option<Vec<String>>,
        );
        let table: [Row<'_>; 7] = [
            (&[DISK], &[], &[], one()),
            (&[DISK], &[DISK], &[], one()),
            (&[DISK], &[DISK], &[DISK], None),
            (&[OTHER, DISK], &[DISK], &[DISK], both()),
            (&[], &[DISK], &[DISK], None),
            (&[], &[], &[DISK], none()),
            (&[DISK], &[DISK], &[OTHER, DISK], one()),
        ];
        for (wants, in_use, reported, expected) in table {
            let node = node(in_use, reported, true);
            let plan = planned(wants, &[], &node, Duration::ZERO);
            assert_eq!(plan.report, expected, "{wants:?} {in_use:?} {reported:?}");
            assert!(plan.attach.is_empty());
            assert!(
                plan.detach
                    .iter()
                    .all(|d| d.attachment.is_none() && !d.force)
            );
            let gone: Vec<&str> = plan.detach.iter().map(|d| &*d.volume).collect();
            let expected: Vec<&str> = reported
                .iter()
                .filter(|name| !wants.contains(name) && !in_use.contains(name))
                .copied()
                .collect();
            assert_eq!(gone, expected);
        }
        // Beside volumes of drivers.
        let node = node(&["v"], &["v"], true);
        let plan = planned(&["v", DISK], &[("v", true, false)], &node, Duration::ZERO);
        assert_eq!(plan.report, Some(vec![DISK.to_owned(), "v".to_owned()]));
        assert_eq!(plan.ready, [DISK]);
    }

    #[test]
    fn a_disk_of_one_node_waits_for_the_other_too() {
        const DISK: &str = "kubernetes.io/iscsi/p:i:0";
        let there = |node: &Node| {
            let (wanted, attached) = (wanted(&[DISK]), attached(&[]));
            plan(&wanted, &attached, node, |_| true, |_| Duration::ZERO, true)
        };
        let taken = there(&node(&[DISK], &[], true));
        assert_eq!((taken.taken, taken.report), (vec![DISK.to_owned()], None));
        // Who has it keeps it, and is not asked for more once it is gone.
        let gone = Node {
            gone: true,
            ..node(&[DISK], &[DISK], false)
        };
        assert_eq!(there(&gone), Plan::default());
        assert_eq!(there(&node(&[DISK], &[DISK], true)), Plan::default());
        let sick = node(&[DISK], &[DISK], false);
        assert_eq!(
            planned(&[], &[], &sick, UNMOUNT / 2).wait,
            Some(UNMOUNT / 2)
        );
        let late = planned(&[], &[], &sick, UNMOUNT);
        assert!(late.detach[0].force && late.report == Some(Vec::new()));
    }
}
