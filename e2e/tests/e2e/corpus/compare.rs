//! Both servers get each step; whatever differs in their answers is a difference.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use e2e::stand::pki::Pki;
use serde_json::Value;

use super::normal::Normal;
use super::server::{Answer, Server};
use super::steps::{self, Kinds, Request, text};
use super::wire;

/// What of an answer differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    Status,
    Reason,
    /// The set of field and reason of each cause.
    Causes,
    Body,
    ManagedFields,
    Warnings,
    Etcd,
}

/// One difference, in words.
pub struct Difference {
    pub step: String,
    pub aspect: Aspect,
    pub text: String,
}

/// What came of a directory.
#[derive(Default)]
pub struct Seen {
    /// Upstream's statuses.
    pub statuses: Vec<u16>,
    /// How many values in etcd were compared.
    pub values: usize,
    pub differences: Vec<Difference>,
}

/// Sends a directory to servers of two directories of programs.
pub async fn directory(corpus: &Path, ours: &Path, theirs: &Path) -> Result<Seen> {
    let home = tempfile::tempdir()?;
    let pki = Pki::make(&home.path().join("pki"))?;
    let ours = Server::start(ours, &home.path().join("ours"), &pki)
        .await
        .context("ours")?;
    let theirs = Server::start(theirs, &home.path().join("theirs"), &pki)
        .await
        .context("upstream's")?;
    let kinds = Kinds::of(&theirs).await?;
    let steps = steps::read(corpus)?;
    let said: Vec<_> = steps.iter().map(|step| step.document.to_string()).collect();
    let normal = Normal::new(said.join("\n"));

    let mut seen = Seen::default();
    let mut last = String::new();
    for step in &steps {
        let request = Request::new(step, &kinds, &mut last)?;
        let our = ours.ask(&request.ask(&ours).await?).await?;
        let their = theirs.ask(&request.ask(&theirs).await?).await?;
        let differences = &mut seen.differences;
        let mut note = |aspect, our: &str, their: &str| {
            if our != their {
                differences.push(Difference {
                    step: request.title.clone(),
                    aspect,
                    text: changed_lines(our, their),
                });
            }
        };
        seen.statuses.push(their.status);
        note(
            Aspect::Warnings,
            &our.warnings.join("\n"),
            &their.warnings.join("\n"),
        );
        if our.status != their.status {
            let [our, their] = [&our, &their].map(outcome);
            note(Aspect::Status, &our, &their);
            continue;
        }
        if their.status >= 400 {
            let [one, other] = [&our, &their].map(|answer| text(&answer.body["reason"]));
            note(Aspect::Reason, &one, &other);
            note(Aspect::Causes, &causes(&our.body), &causes(&their.body));
            continue;
        }
        let (one, other) = (
            written(&ours, &our, &normal),
            written(&theirs, &their, &normal),
        );
        if let (Some(one), Some(other)) = (one.await?, other.await?) {
            seen.values += 1;
            note(Aspect::Etcd, &one, &other);
        }
        let [one, other] = [our.body, their.body].map(|mut body| {
            normal.json(&mut body);
            let managed = body
                .get_mut("metadata")
                .and_then(Value::as_object_mut)
                .and_then(|metadata| metadata.remove("managedFields"));
            (
                format!("{body:#}"),
                format!("{:#}", managed.unwrap_or_default()),
            )
        });
        note(Aspect::Body, &one.0, &other.0);
        note(Aspect::ManagedFields, &one.1, &other.1);
    }
    Ok(seen)
}

fn outcome(answer: &Answer) -> String {
    let message = text(&answer.body["message"]);
    format!("{} {message}", answer.status)
}

fn causes(body: &Value) -> String {
    let causes = body["details"]["causes"].as_array();
    let set: BTreeSet<_> = causes
        .into_iter()
        .flatten()
        .map(|cause| format!("{} {}", text(&cause["field"]), text(&cause["reason"])))
        .collect();
    set.into_iter().collect::<Vec<_>>().join("\n")
}

/// What is in etcd for an answer, comparable and in lines; none for an answer that
/// is of no stored object.
async fn written(server: &Server, answer: &Answer, normal: &Normal) -> Result<Option<String>> {
    let metadata = &answer.body["metadata"];
    let Some(revision) = metadata["resourceVersion"].as_str() else {
        return Ok(None);
    };
    if !metadata["uid"].is_string() {
        return Ok(None);
    }
    let Some((key, value)) = server.written(revision).await? else {
        return Ok(Some("has been written again".into()));
    };
    let mut out = format!("{key}\n");
    if let Some(message) = value.strip_prefix(b"k8s\0") {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut fields = wire::read(message).context("a message in etcd")?;
        normal.wire(&mut fields, now);
        wire::lines(&fields, 0, &mut out);
    } else {
        let mut value = serde_json::from_slice(&value)?;
        normal.json(&mut value);
        out.push_str(&format!("{value:#}"));
    }
    Ok(Some(out))
}

/// The lines that only one side has, roughly: what begins and ends alike is left out.
fn changed_lines(our: &str, their: &str) -> String {
    let (our, their): (Vec<_>, Vec<_>) = (our.lines().collect(), their.lines().collect());
    let alike = |(one, other): &(&&str, &&str)| one == other;
    let head = our.iter().zip(&their).take_while(alike).count();
    let (one, other) = (&our[head..], &their[head..]);
    let tail = one
        .iter()
        .rev()
        .zip(other.iter().rev())
        .take_while(alike)
        .count();
    let show = |sign: char, lines: &[&str]| -> String {
        let lines = &lines[..lines.len() - tail];
        let kept = lines.iter().take(24);
        kept.map(|line| format!("    {sign} {line}\n")).collect()
    };
    format!("{}{}", show('-', other), show('+', one))
}
