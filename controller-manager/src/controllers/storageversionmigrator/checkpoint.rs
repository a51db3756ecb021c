//! Up to which revision a migration goes: the one that its resource has when its turn comes.
//! What is written later is in today's version anyway.

use client::workqueue::Requeue;
use client::{Error, ListOptions, ObjectKey};

use super::Controller;
use super::plan::{self, Phase, Target, Verdict};
use crate::context::now;
use crate::discovery::{Resource, discover};

/// No namespace can be called that: a list of it has a revision and nothing else.
const NOWHERE: &str = "@fake:svm_ns!";

impl Controller {
    /// Notes it.
    pub(super) async fn note_revision(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(migration) = self.migrations.get_key(key) else {
            return Ok(Requeue::No);
        };
        if plan::phase(&migration) != Phase::Unbounded {
            return Ok(Requeue::No);
        }
        let served = discover(&self.client).await?;
        let absent = "resource does not exist in discovery";
        let resource = match plan::target(&migration, &served, absent, now()) {
            Target::Found(resource) => resource,
            Target::Awaited => return Ok(Requeue::Backoff),
            Target::Never(why) => return self.tell(&migration, &Verdict::Failed(why)).await,
        };
        if let Some(why) = plan::hindrance(resource) {
            return self.tell(&migration, &Verdict::Failed(why)).await;
        }
        let revision = self.latest(resource).await?;
        if let Err(malformed) = plan::compare(&revision, &revision) {
            let gvr = &resource.gvr;
            let why = format!("latest resourceVersion for {gvr} is not valid: {malformed}");
            return self.tell(&migration, &Verdict::Failed(why)).await;
        }
        self.write(&plan::bounded(&migration, &revision)).await
    }

    async fn latest(&self, resource: &Resource) -> Result<String, Error> {
        let one = ListOptions::new().limit(1);
        let list = self.stored(resource).within(NOWHERE).list(&one).await?;
        Ok(list.resource_version().to_owned())
    }
}
