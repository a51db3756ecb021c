//! What happens one after the other: pods that come before what they wait for, claims that
//! pods share, devices that have to become ready. Each story is played before both.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{API, NAMESPACE, Outcome, Run, agreed, claim_path, text};
use crate::scheduling::objects::{delete, pod_path};
use crate::stand::http::{Ask, MERGE};

/// One story before one scheduler.
pub struct Story<'a> {
    run: &'a mut Run,
    scheduler: &'a str,
    /// What names begin with, for no two stories to share any.
    prefix: String,
    transcript: Vec<String>,
    /// What has to be deleted, the last first.
    made: Vec<String>,
}

/// Names of all stories.
pub const ALL: [&str; 11] = [
    "claim comes later",
    "claim of a template comes later",
    "class comes later",
    "slice comes later",
    "device is given back",
    "two share a claim",
    "two share a claim at once",
    "many at once",
    "claim was for another node",
    "devices become ready",
    "devices fail",
];

/// Plays a story; what was seen.
///
/// # Errors
///
/// When it cannot be told.
pub async fn play(run: &mut Run, scheduler: &str, which: usize) -> Result<Vec<String>> {
    run.number += 1;
    let prefix = format!("story-{}", run.number);
    let mut story = Story {
        run,
        scheduler,
        prefix,
        transcript: Vec::new(),
        made: Vec::new(),
    };
    let told = story.tell(which).await;
    if let Err(error) = told {
        story.transcript.push(format!("ends early: {error:#}"));
    }
    let prefix = story.prefix.clone();
    let transcript = std::mem::take(&mut story.transcript);
    story.clear().await?;
    Ok(transcript
        .into_iter()
        .map(|line| line.replace(&prefix, "STORY"))
        .collect())
}

fn claims(name: &str) -> Value {
    json!([{"name": "c", "resourceClaimName": name}])
}

impl Story<'_> {
    fn name(&self, of: &str) -> String {
        format!("{}-{of}", self.prefix)
    }

    async fn make(&mut self, path: &str, object: Value) -> Result<Value> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        self.made.push(format!("{path}/{name}"));
        let made = self.run.connection.json(&Ask::post(path, &object)).await;
        made.with_context(|| object.to_string())
    }

    async fn class(&mut self) -> Result<()> {
        let driver = self.name("driver");
        let selector = json!({"cel": {"expression": format!("device.driver == '{driver}'")}});
        let class = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": {"name": self.name("class")}, "spec": {"selectors": [selector]},
        });
        self.make(&format!("{API}/deviceclasses"), class).await?;
        Ok(())
    }

    async fn slice(&mut self, node: &str, devices: Value) -> Result<()> {
        let name = self.name(node);
        let slice = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
            "metadata": {"name": name},
            "spec": {
                "driver": self.name("driver"), "nodeName": node, "devices": devices,
                "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
            },
        });
        self.make(&format!("{API}/resourceslices"), slice).await?;
        Ok(())
    }

    async fn claim(&mut self, owner: Option<Value>) -> Result<String> {
        let name = self.name(&format!("claim{}", self.made.len()));
        let request = json!({"deviceClassName": self.name("class")});
        let mut claim = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": request}]}},
        });
        if let Some(owner) = owner {
            claim["metadata"]["ownerReferences"] = json!([owner]);
        }
        let path = format!("{API}/namespaces/{NAMESPACE}/resourceclaims");
        self.make(&path, claim).await?;
        Ok(name)
    }

    async fn pod(&mut self, of: &str, claims: Value, node: Option<&str>) -> Result<Value> {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name(of), "namespace": NAMESPACE},
            "spec": {
                "schedulerName": self.scheduler, "resourceClaims": claims,
                "containers": [{"name": "c", "image": "i"}],
            },
        });
        if let Some(node) = node {
            pod["spec"]["nodeSelector"] = json!({"name": node});
        }
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        self.make(&path, pod).await
    }

    async fn patch(&self, path: &str, body: Value) -> Result<()> {
        let ask = Ask::send(http::Method::PATCH, path, MERGE, body.to_string());
        self.run.connection.success(&ask).await?;
        Ok(())
    }

    async fn read(&self, claim: &str) -> Result<Value> {
        self.run.connection.json(&Ask::get(claim_path(claim))).await
    }

    /// Waits until something becomes of a pod, and notes it.
    async fn outcome(&mut self, of: &str) -> Result<()> {
        let name = self.name(of);
        let mut outcome = Outcome::default();
        while outcome.node.is_none() && outcome.refused.is_none() {
            let (_, object) = self.run.changes.next().await?;
            if object["metadata"]["name"] == *name {
                outcome.see(&object);
            }
        }
        self.note(of, &outcome);
        Ok(())
    }

    /// Waits until a pod has a node.
    async fn placed(&mut self, of: &str) -> Result<()> {
        let name = self.name(of);
        let mut outcome = Outcome::default();
        while outcome.node.is_none() {
            let (_, object) = self.run.changes.next().await?;
            if object["metadata"]["name"] == *name {
                outcome.see(&object);
            }
        }
        outcome.refused = None;
        self.note(of, &outcome);
        Ok(())
    }

    /// Waits until all of these pods have a node.
    async fn all_placed(&mut self, of: &[String]) -> Result<()> {
        let mut waiting: Vec<String> = of.iter().map(|of| self.name(of)).collect();
        while !waiting.is_empty() {
            let (_, object) = self.run.changes.next().await?;
            if text(&object["spec"]["nodeName"]).is_some() {
                waiting.retain(|name| object["metadata"]["name"] != **name);
            }
        }
        Ok(())
    }

    fn note(&mut self, of: &str, outcome: &Outcome) {
        let refused = outcome.refused.as_ref().filter(|_| outcome.node.is_none());
        let line = format!("{of}: {:?} {refused:?}", outcome.node);
        self.transcript.push(line);
    }

    /// Notes what a claim has got, and for how many.
    async fn got(&mut self, claim: &str) -> Result<()> {
        let claim = self.read(claim).await?;
        let status = &claim["status"];
        let users = status["reservedFor"].as_array().map_or(0, Vec::len);
        let finalizers = &claim["metadata"]["finalizers"];
        let line = format!(
            "{} for {users}, {finalizers}",
            agreed(&status["allocation"])
        );
        self.transcript.push(line);
        Ok(())
    }

    async fn tell(&mut self, which: usize) -> Result<()> {
        let one = json!([{"name": "x"}]);
        match ALL[which] {
            "claim comes later" => {
                self.class().await?;
                self.slice("node-0", one).await?;
                // The name that it will have.
                let name = self.name(&format!("claim{}", self.made.len() + 1));
                self.pod("p", claims(&name), None).await?;
                let claim = self.claim(None).await?;
                self.placed("p").await?;
                self.got(&claim).await
            }
            "claim of a template comes later" => {
                self.class().await?;
                self.slice("node-0", one).await?;
                let uses = json!([{"name": "c", "resourceClaimTemplateName": "t"}]);
                let pod = self.pod("p", uses, None).await?;
                let owner = json!({
                    "apiVersion": "v1", "kind": "Pod", "controller": true,
                    "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
                });
                let claim = self.claim(Some(owner)).await?;
                let status = json!([{"name": "c", "resourceClaimName": claim}]);
                let path = format!("{}/status", pod_path(NAMESPACE, &self.name("p")));
                let status = json!({"status": {"resourceClaimStatuses": status}});
                self.patch(&path, status).await?;
                self.placed("p").await?;
                self.got(&claim).await
            }
            "class comes later" => {
                self.slice("node-0", one).await?;
                let claim = self.claim(None).await?;
                self.pod("p", claims(&claim), None).await?;
                self.outcome("p").await?;
                self.class().await?;
                self.placed("p").await?;
                self.got(&claim).await
            }
            "slice comes later" => {
                self.class().await?;
                let claim = self.claim(None).await?;
                self.pod("p", claims(&claim), None).await?;
                self.outcome("p").await?;
                self.slice("node-1", one).await?;
                self.placed("p").await?;
                self.got(&claim).await
            }
            "device is given back" => {
                self.class().await?;
                self.slice("node-0", one).await?;
                let first = self.claim(None).await?;
                let second = self.claim(None).await?;
                self.pod("p", claims(&first), None).await?;
                self.placed("p").await?;
                self.pod("q", claims(&second), None).await?;
                self.outcome("q").await?;
                self.free(&first).await?;
                self.placed("q").await?;
                self.got(&second).await
            }
            "two share a claim" => {
                self.class().await?;
                self.slice("node-1", one).await?;
                let claim = self.claim(None).await?;
                self.pod("p", claims(&claim), None).await?;
                self.placed("p").await?;
                self.pod("q", claims(&claim), None).await?;
                self.placed("q").await?;
                self.got(&claim).await?;
                self.pod("r", claims(&claim), Some("node-0")).await?;
                self.outcome("r").await
            }
            "two share a claim at once" => {
                self.class().await?;
                self.slice("node-1", one).await?;
                let claim = self.claim(None).await?;
                self.pod("p", claims(&claim), None).await?;
                self.pod("q", claims(&claim), None).await?;
                self.all_placed(&["p".into(), "q".into()]).await?;
                self.got(&claim).await
            }
            "many at once" => {
                self.class().await?;
                for node in ["node-0", "node-1"] {
                    let four = (0..4).map(|i| json!({"name": format!("{node}-{i}")}));
                    self.slice(node, four.collect()).await?;
                }
                let mut pods = Vec::new();
                let mut all = Vec::new();
                for i in 0..8 {
                    let claim = self.claim(None).await?;
                    let pod = format!("p{i}");
                    self.pod(&pod, claims(&claim), None).await?;
                    all.push(claim);
                    pods.push(pod);
                }
                self.all_placed(&pods).await?;
                let mut devices = Vec::new();
                for claim in all {
                    let claim = self.read(&claim).await?;
                    let results = &claim["status"]["allocation"]["devices"]["results"];
                    devices.extend(text(&results[0]["device"]));
                }
                devices.sort();
                self.transcript.push(devices.join(" "));
                Ok(())
            }
            "claim was for another node" => {
                self.class().await?;
                self.slice("node-0", one.clone()).await?;
                self.slice("node-1", one).await?;
                let claim = self.claim(None).await?;
                self.pod("p", claims(&claim), Some("node-0")).await?;
                self.placed("p").await?;
                self.got(&claim).await?;
                let nobody = json!({"status": {"reservedFor": null}});
                let path = format!("{}/status", claim_path(&claim));
                self.patch(&path, nobody).await?;
                self.pod("q", claims(&claim), Some("node-1")).await?;
                self.outcome("q").await?;
                self.placed("q").await?;
                self.got(&claim).await
            }
            "devices become ready" | "devices fail" => {
                let fails = ALL[which] == "devices fail";
                self.class().await?;
                let device = json!([{
                    "name": "x", "bindsToNode": true,
                    "bindingConditions": ["Ready"], "bindingFailureConditions": ["Broken"],
                }]);
                self.slice("node-0", device).await?;
                let claim = self.claim(None).await?;
                self.pod("p", claims(&claim), None).await?;
                self.allocated(&claim).await?;
                self.condition(&claim, if fails { "Broken" } else { "Ready" })
                    .await?;
                if fails {
                    self.outcome("p").await?;
                } else {
                    self.placed("p").await?;
                    self.got(&claim).await?;
                }
                Ok(())
            }
            other => bail!("there is no story {other}"),
        }
    }

    /// Waits until a claim has its devices.
    async fn allocated(&mut self, claim: &str) -> Result<Value> {
        for _ in 0..200 {
            let now = self.read(claim).await?;
            if !now["status"]["allocation"].is_null() {
                return Ok(now);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        bail!("{claim} gets nothing")
    }

    /// The driver says something of the claim's device.
    async fn condition(&self, claim: &str, ty: &str) -> Result<()> {
        let name = self.name("node-0");
        let condition = json!({
            "type": ty, "status": "True", "reason": "R", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let device = json!({
            "driver": self.name("driver"), "pool": name, "device": "x", "conditions": [condition],
        });
        let path = format!("{}/status", claim_path(claim));
        self.patch(&path, json!({"status": {"devices": [device]}}))
            .await
    }

    async fn free(&self, claim: &str) -> Result<()> {
        let path = claim_path(claim);
        let nothing = json!({"status": {"allocation": null, "reservedFor": null, "devices": null}});
        self.patch(&format!("{path}/status"), nothing).await?;
        self.patch(&path, json!({"metadata": {"finalizers": null}}))
            .await
    }

    async fn clear(&mut self) -> Result<()> {
        for path in std::mem::take(&mut self.made).into_iter().rev() {
            if path.contains("/resourceclaims/") {
                let claim = path.rsplit('/').next().and_then(|n| text(&n.into()));
                // It may be gone.
                let _ = self.free(&claim.unwrap_or_default()).await;
            }
            self.run.connection.ask(&delete(&path)).await?;
        }
        Ok(())
    }
}
