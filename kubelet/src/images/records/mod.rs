//! Who may use an image that is on the node (KubeletEnsureSecretPulledImages, KEP-2535): whoever
//! has the credentials that it was pulled with. What was pulled how is kept in files, upstream's.

mod files;
mod policy;
mod record;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use grpc::cri;
use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{error, warn};

use self::files::Files;
pub use self::policy::Policy;
pub use self::record::Access;
use self::record::PulledRecord;
use super::keyring::Credential;
use super::reference::without_tag;

/// More secrets than these are not remembered by the way.
const REMEMBERED: usize = 100;

/// What is to be done about an image that is there.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    MustPull,
    /// Allowed for pods that have any of this.
    Needs(Access),
}

/// The records, and how many pulls of each image are under way.
pub struct Records {
    files: Files,
    policy: Policy,
    pulling: Mutex<HashMap<String, usize>>,
}

impl Records {
    /// # Errors
    /// When there is no place for them.
    pub fn open(root: &Path, policy: Policy) -> std::io::Result<Self> {
        Ok(Self {
            files: Files::open(&root.join("image_manager"))?,
            policy,
            pulling: Mutex::default(),
        })
    }

    /// Takes in what an earlier kubelet began to pull and did not see the end of.
    pub fn recover(&self, images: &[cri::Image], now: Timestamp) {
        let _guard = self.pulling.lock();
        let begun: HashSet<String> = self.files.intents().into_iter().collect();
        for image in images {
            let names = image.repo_digests.iter().chain(&image.repo_tags);
            for name in names.filter(|name| begun.contains(*name)) {
                if self.add(name, &image.id, None, now) {
                    self.forget_intent(name);
                }
            }
        }
    }

    /// A pull begins.
    ///
    /// # Errors
    /// When that cannot be written down: the image would be taken for one that was always there.
    pub fn begin(&self, image: &str) -> std::io::Result<()> {
        let mut pulling = self.pulling.lock();
        self.files.write_intent(image)?;
        *pulling.entry(image.to_owned()).or_default() += 1;
        Ok(())
    }

    /// A pull has ended, and where it went well, with which credential.
    pub fn end(&self, image: &str, pulled: Option<(&str, Option<&Credential>)>, now: Timestamp) {
        let mut pulling = self.pulling.lock();
        if let Some((image_ref, credential)) = pulled {
            let access = Access::of(credential);
            // What is not written down goes on as begun: the next kubelet takes it in.
            if !self.add(image, image_ref, Some(access), now) {
                return;
            }
        }
        match pulling.get_mut(image) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                if self.forget_intent(image) {
                    pulling.remove(image);
                }
            }
        }
    }

    fn forget_intent(&self, image: &str) -> bool {
        let removed = self.files.remove_intent(image);
        removed
            .inspect_err(|error| error!(%error, image, "failed to remove image pull intent"))
            .is_ok()
    }

    /// Writes down who may use an image. Whether that went well.
    fn add(&self, image: &str, image_ref: &str, access: Option<Access>, now: Timestamp) -> bool {
        let Some(name) = without_tag(image) else {
            error!(image, "invalid image name");
            return false;
        };
        let known = self.files.record(image_ref).unwrap_or_else(|error| {
            warn!(%error, image, "failed to retrieve an ImagePulledRecord");
            None
        });
        let Some(record) = PulledRecord::with(known, image_ref, &name, access, now) else {
            return true;
        };
        let written = self.files.write_record(&record);
        written
            .inspect_err(|error| error!(%error, image_ref, "failed to write image pulled record"))
            .is_ok()
    }

    /// Whether an image that is there may be used.
    pub fn check(&self, image: &str, image_ref: &str) -> Verdict {
        let pulling = self.pulling.lock();
        let read = self.files.record(image_ref).and_then(|record| {
            let ours =
                record.is_some() || pulling.contains_key(image) || self.files.has_intent(image)?;
            Ok((record, ours))
        });
        let (record, ours) = match read {
            Ok(read) => read,
            Err(error) => {
                error!(%error, "Unable to access cache records about image pulls");
                return Verdict::MustPull;
            }
        };
        let name = without_tag(image);
        if !self.policy.verifies(name.as_deref().unwrap_or(image), ours) {
            return Verdict::Allowed;
        }
        let access = name.and_then(|name| record?.credential_mapping.remove(&name));
        match access {
            None => Verdict::MustPull,
            Some(access) if access.node_pods_accessible => Verdict::Allowed,
            Some(access) if access.is_empty() => Verdict::MustPull,
            Some(access) => Verdict::Needs(access),
        }
    }

    /// Whether a pod's credentials are among those that are needed. A secret that was changed, or
    /// another with the same content, is remembered.
    pub fn admits(
        &self,
        needed: &Access,
        credentials: &[Credential],
        image: &str,
        image_ref: &str,
        now: Timestamp,
    ) -> bool {
        let remembers = needed.kubernetes_secrets.len() < REMEMBERED;
        for credential in credentials {
            let Some(found) = needed.find_secret(credential) else {
                continue;
            };
            if !found.is_same() && remembers {
                let _guard = self.pulling.lock();
                self.add(image, image_ref, Some(Access::of(Some(credential))), now);
            }
            if found.by_content || (found.by_name && remembers) {
                return true;
            }
        }
        needed.has_account(credentials)
    }

    /// Forgets images that are gone. A record that was written since `began` stays.
    pub fn prune(&self, images: &HashSet<String>, began: Timestamp) {
        let _guard = self.pulling.lock();
        for record in self.files.records() {
            if record.last_updated_time >= began || images.contains(&record.image_ref) {
                continue;
            }
            if let Err(error) = self.files.remove_record(&record.image_ref) {
                error!(%error, image_ref = record.image_ref, "failed to remove an ImagePulledRecord");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keyring::{Coordinates, Login, Source};
    use super::*;

    fn secret(name: &str, password: &str) -> Credential {
        Credential {
            login: Login {
                username: "u".into(),
                password: password.into(),
                email: String::new(),
            },
            source: Source::Secret(Coordinates {
                namespace: "ns".into(),
                name: name.into(),
                uid: format!("{name}-uid"),
            }),
        }
    }

    #[test]
    fn who_may_use_what_was_pulled() {
        let root = tempfile::tempdir().unwrap();
        let records = Records::open(root.path(), Policy::NeverVerifyPreloadedImages).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(records.check("a.io/x:1", "id"), Verdict::Allowed);
        records.begin("a.io/x:1").unwrap();
        assert_eq!(records.check("a.io/x:1", "id"), Verdict::MustPull);
        let first = secret("s", "p");
        records.end("a.io/x:1", Some(("id", Some(&first))), now);
        assert!(records.files.intents().is_empty());
        let Verdict::Needs(needed) = records.check("a.io/x:2", "id") else {
            panic!("a secret is needed");
        };
        assert_eq!(records.check("b.io/x:1", "id"), Verdict::MustPull);

        let admits = |credential| records.admits(&needed, &[credential], "a.io/x:1", "id", now);
        assert!(admits(first) && admits(secret("s", "changed")));
        assert!(admits(secret("copy", "p")) && !admits(secret("other", "q")));
        let Verdict::Needs(needed) = records.check("a.io/x:2", "id") else {
            panic!("a secret is needed");
        };
        assert_eq!(needed.kubernetes_secrets.len(), 2, "the copy is remembered");

        records.begin("a.io/x:1").unwrap();
        records.end("a.io/x:1", Some(("id", None)), now);
        assert_eq!(records.check("a.io/x:1", "id"), Verdict::Allowed);

        let later = Timestamp::from_second(1_800_000_100).unwrap();
        records.prune(&HashSet::from(["id".to_owned()]), later);
        assert_eq!(records.files.records().len(), 1);
        records.prune(&HashSet::new(), now);
        assert_eq!(records.files.records().len(), 1, "it is too new");
        records.prune(&HashSet::new(), later);
        assert!(records.files.records().is_empty());
    }

    #[test]
    fn what_an_earlier_kubelet_began_is_taken_in() {
        let root = tempfile::tempdir().unwrap();
        let open = || Records::open(root.path(), Policy::NeverVerifyPreloadedImages).unwrap();
        open().begin("a.io/x:1").unwrap();
        open().begin("a.io/y:1").unwrap();
        let image = cri::Image {
            id: "id".into(),
            repo_tags: vec!["a.io/x:1".into()],
            ..Default::default()
        };
        let records = open();
        records.recover(&[image], Timestamp::now());
        assert_eq!(records.files.intents(), ["a.io/y:1"]);
        assert_eq!(records.check("a.io/x:1", "id"), Verdict::MustPull);
        // One that failed to be pulled is nobody's.
        records.begin("a.io/y:1").unwrap();
        records.end("a.io/y:1", None, Timestamp::now());
        assert_eq!(records.check("a.io/y:1", "other"), Verdict::Allowed);
    }
}
