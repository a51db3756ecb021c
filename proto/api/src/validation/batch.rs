//! Jobs and cron jobs: the list of their rules.

use meta::validation as format;

use super::{Rules, any_update, cron, job, job_status};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "batch",
        kind: "Job",
        name: format::dns1123_subdomain,
        object: job::object,
        update: job::update,
        status: job_status::status,
    },
    Rules {
        group: "batch",
        kind: "CronJob",
        name: cron::name,
        object: |at, errors| cron::spec(&at.get("spec"), errors),
        update: cron::updated,
        status: any_update,
    },
];
