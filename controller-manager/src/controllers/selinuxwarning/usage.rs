//! Which pods use which volumes, and which of them cannot have one at the same time: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use client::ObjectKey;

use super::label::{self, Label};

/// How a pod has a volume: what it was mounted with, or without a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access(pub Option<Label>);

impl Access {
    fn policy(&self) -> &'static str {
        match self.0 {
            Some(_) => "MountOption",
            None => "Recursive",
        }
    }

    fn value(&self, property: Property) -> &str {
        match property {
            Property::Policy => self.policy(),
            Property::Label => self.0.as_ref().map_or("", Label::as_str),
        }
    }

    /// In what the two cannot be at the same time.
    fn conflicts(&self, other: &Self) -> impl Iterator<Item = Property> {
        let policy = self.policy() != other.policy();
        let label = label::conflict(self.0.as_ref(), other.0.as_ref());
        let policy = policy.then_some(Property::Policy);
        policy.into_iter().chain(label.then_some(Property::Label))
    }
}

/// In what pods may be at odds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    Policy,
    Label,
}

impl Property {
    /// As metrics and messages say.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "SELinuxChangePolicy",
            Self::Label => "SELinuxLabel",
        }
    }

    /// Of events.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Policy => "SELinuxChangePolicyConflict",
            Self::Label => "SELinuxLabelConflict",
        }
    }
}

/// That two pods cannot have a volume on the same node, as one of them is to hear it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    pub property: Property,
    pub pod: ObjectKey,
    pub value: String,
    pub other: ObjectKey,
    pub other_value: String,
}

impl Conflict {
    fn of(property: Property, a: (&ObjectKey, &Access), b: (&ObjectKey, &Access)) -> Self {
        Self {
            property,
            pod: a.0.clone(),
            value: a.1.value(property).to_owned(),
            other: b.0.clone(),
            other_value: b.1.value(property).to_owned(),
        }
    }

    /// As each of the two is to hear it.
    fn both(property: Property, a: (&ObjectKey, &Access), b: (&ObjectKey, &Access)) -> [Self; 2] {
        [Self::of(property, a, b), Self::of(property, b, a)]
    }

    /// For the pod's event. Who may see it may not know of other namespaces.
    pub fn message(&self) -> String {
        let (property, value) = (self.property.name(), &self.value);
        let end = "If both pods land on the same node, only one of them may access the volume.";
        if self.pod.namespace() == self.other.namespace() {
            let (other, theirs) = (self.other.name(), &self.other_value);
            return format!(
                "{property} \"{value}\" conflicts with pod {other} that uses the same volume as this pod with {property} \"{theirs}\". {end}"
            );
        }
        // Without a space, as upstream says it.
        format!(
            "{property}\"{value}\" conflicts with another pod that uses the same volume as this pod with a different {property}. {end}"
        )
    }
}

#[derive(Debug, Default)]
struct Volume {
    /// Its CSI driver, if it has one.
    driver: Option<String>,
    pods: BTreeMap<ObjectKey, Access>,
}

#[derive(Debug)]
struct Pod {
    uid: String,
    volumes: BTreeSet<String>,
}

/// All volumes that pods use, by their unique names.
#[derive(Debug, Default)]
pub struct Usage {
    volumes: HashMap<String, Volume>,
    pods: HashMap<ObjectKey, Pod>,
}

impl Usage {
    /// A pod is there. What another of its name had used is not this one's.
    pub fn meet(&mut self, pod: &ObjectKey, uid: &str) {
        if self.pods.get(pod).is_some_and(|known| known.uid == uid) {
            return;
        }
        self.remove(pod);
        let new = Pod {
            uid: uid.to_owned(),
            volumes: BTreeSet::new(),
        };
        self.pods.insert(pod.clone(), new);
    }

    /// A pod that was met uses a volume. Returns the conflicts that come of it; none where this
    /// is known.
    pub fn add(
        &mut self,
        pod: &ObjectKey,
        unique: &str,
        driver: Option<&str>,
        access: Access,
    ) -> Vec<Conflict> {
        let volume = self.volumes.entry(unique.to_owned()).or_default();
        volume.driver = driver.map(str::to_owned);
        if volume.pods.get(pod) == Some(&access) {
            return Vec::new();
        }
        if let Some(known) = self.pods.get_mut(pod) {
            known.volumes.insert(unique.to_owned());
        }
        let mut conflicts = Vec::new();
        for (other, theirs) in volume.pods.iter().filter(|(other, _)| *other != pod) {
            for property in access.conflicts(theirs) {
                conflicts.extend(Conflict::both(property, (pod, &access), (other, theirs)));
            }
        }
        volume.pods.insert(pod.clone(), access);
        conflicts
    }

    /// A pod is gone, or has ended.
    pub fn remove(&mut self, pod: &ObjectKey) {
        let Some(gone) = self.pods.remove(pod) else {
            return;
        };
        for unique in gone.volumes {
            if let Some(volume) = self.volumes.get_mut(&unique) {
                volume.pods.remove(pod);
                if volume.pods.is_empty() {
                    self.volumes.remove(&unique);
                }
            }
        }
    }

    /// The pods with volumes of a CSI driver.
    pub fn pods_of(&self, driver: &str) -> Vec<ObjectKey> {
        let volumes = self.volumes.values();
        let of_it = volumes.filter(|volume| volume.driver.as_deref() == Some(driver));
        of_it
            .flat_map(|volume| volume.pods.keys().cloned())
            .collect()
    }

    /// All conflicts that there are.
    pub fn conflicts(&self) -> BTreeSet<Conflict> {
        let mut conflicts = BTreeSet::new();
        for volume in self.volumes.values() {
            // Most pods of a volume have it alike.
            let mut alike: BTreeMap<&Access, Vec<&ObjectKey>> = BTreeMap::new();
            for (pod, access) in &volume.pods {
                alike.entry(access).or_default().push(pod);
            }
            let alike: Vec<_> = alike.into_iter().collect();
            for (i, (a, of_a)) in alike.iter().enumerate() {
                for (b, of_b) in &alike[i + 1..] {
                    for property in a.conflicts(b) {
                        for (x, y) in of_a.iter().flat_map(|x| of_b.iter().map(move |y| (x, y))) {
                            conflicts.extend(Conflict::both(property, (x, a), (y, b)));
                        }
                    }
                }
            }
        }
        conflicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(level: &str) -> Access {
        let options = serde_json::json!({"level": level});
        Access(Label::of(&serde_json::from_value(options).unwrap()))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::from(name)
    }

    fn uses(usage: &mut Usage, pod: &str, volume: &str, level: &str) -> Vec<String> {
        usage.meet(&key(pod), &format!("uid of {pod}"));
        let conflicts = usage.add(&key(pod), volume, Some("driver"), access(level));
        conflicts.iter().map(told).collect()
    }

    fn told(conflict: &Conflict) -> String {
        let Conflict {
            property,
            pod,
            value,
            other,
            other_value,
        } = conflict;
        format!("{property:?} {pod} {value:?} {other} {other_value:?}")
    }

    fn all(usage: &Usage) -> Vec<String> {
        usage.conflicts().iter().map(told).collect()
    }

    #[test]
    fn conflicts_come_and_go() {
        let mut usage = Usage::default();
        let usage = &mut usage;
        assert!(uses(usage, "n/a", "v", "s0").is_empty());
        assert!(uses(usage, "n/b", "v", "s0").is_empty());
        assert!(uses(usage, "n/c", "other", "s1").is_empty());
        let come = [
            r#"Label n/d ":::s1" n/a ":::s0""#,
            r#"Label n/a ":::s0" n/d ":::s1""#,
            r#"Label n/d ":::s1" n/b ":::s0""#,
            r#"Label n/b ":::s0" n/d ":::s1""#,
        ];
        assert_eq!(uses(usage, "n/d", "v", "s1"), come);
        // They are told once.
        assert!(uses(usage, "n/d", "v", "s1").is_empty());
        assert_eq!(all(usage).len(), 4);
        usage.remove(&key("n/a"));
        assert_eq!(
            all(usage),
            [
                r#"Label n/b ":::s0" n/d ":::s1""#,
                r#"Label n/d ":::s1" n/b ":::s0""#
            ]
        );
        // The driver mounts with labels no more.
        assert_eq!(
            uses(usage, "n/d", "v", ""),
            [
                r#"Policy n/d "Recursive" n/b "MountOption""#,
                r#"Policy n/b "MountOption" n/d "Recursive""#,
                r#"Label n/d "" n/b ":::s0""#,
                r#"Label n/b ":::s0" n/d """#,
            ]
        );
        assert!(uses(usage, "n/b", "v", "").is_empty());
        assert!(all(usage).is_empty());
        for pod in ["n/b", "n/c", "n/d", "n/unknown"] {
            usage.remove(&key(pod));
        }
        assert!(usage.volumes.is_empty() && usage.pods.is_empty());
    }

    #[test]
    fn another_pod_of_the_name_begins_anew() {
        let mut usage = Usage::default();
        uses(&mut usage, "n/a", "v", "s0");
        uses(&mut usage, "n/b", "v", "s1");
        usage.meet(&key("n/a"), "another");
        assert!(all(&usage).is_empty());
        let conflicts = usage.add(&key("n/a"), "v", None, access("s0"));
        assert_eq!(conflicts.len(), 2, "it has not heard of them");
    }

    #[test]
    fn pods_of_a_driver() {
        let mut usage = Usage::default();
        uses(&mut usage, "n/a", "v", "s0");
        usage.meet(&key("n/b"), "uid");
        usage.add(&key("n/b"), "w", None, access(""));
        assert_eq!(usage.pods_of("driver"), [key("n/a")]);
        assert!(usage.pods_of("").is_empty());
    }

    #[test]
    fn messages_do_not_speak_of_other_namespaces() {
        let mut usage = Usage::default();
        usage.meet(&key("n/a"), "1");
        usage.meet(&key("n/b"), "2");
        usage.meet(&key("m/c"), "3");
        usage.add(&key("n/a"), "v", None, access("s0"));
        let [first, _] = &usage.add(&key("n/b"), "v", None, access("s1"))[..] else {
            panic!("two");
        };
        assert_eq!(
            first.message(),
            "SELinuxLabel \":::s1\" conflicts with pod a that uses the same volume as this pod with SELinuxLabel \":::s0\". If both pods land on the same node, only one of them may access the volume."
        );
        let conflicts = usage.add(&key("m/c"), "v", None, access(""));
        assert_eq!(
            conflicts[0].message(),
            "SELinuxChangePolicy\"Recursive\" conflicts with another pod that uses the same volume as this pod with a different SELinuxChangePolicy. If both pods land on the same node, only one of them may access the volume."
        );
        assert!(conflicts.iter().all(|c| !c.message().contains("pod a")));
    }
}
