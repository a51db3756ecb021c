//! Bundles of the certificates that pods are to trust.

use std::time::Duration;

use serde_json::{Value, json};

use super::Book;
use crate::controllers::World;

const BUNDLE: &str = "ClusterTrustBundle";
const BUNDLES: &str = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";

pub fn write(book: &mut Book) {
    book.with("bundle/of-the-signer", SIGNER, others);
    book.with("bundle/of-another-signer", "example.com/signer", others);
    // There is one for all scenarios.
    book.add("bundle/published", published);
}

fn name(signer: &str, name: &str) -> String {
    format!("{}:{name}", signer.replace('/', ":"))
}

/// One that nobody has published but a person.
async fn others(w: World, signer: &'static str) {
    w.create(json!({
        "apiVersion": "certificates.k8s.io/v1beta1", "kind": BUNDLE,
        "metadata": {"name": name(signer, &w.name("b"))},
        "spec": {"signerName": signer, "trustBundle": w.authority()},
    }))
    .await;
    w.see("made").await;
}

/// What was published, once there is one such bundle and no more.
async fn found(w: &World) -> Value {
    let path = format!("{BUNDLES}?fieldSelector=spec.signerName%3D{SIGNER}");
    for _ in 0..400 {
        let all = w.at(&path).await;
        // Those of other scenarios have a dash after the signer.
        let bundles = all["items"].as_array().into_iter().flatten();
        let is = |name: &str| {
            name.rsplit(':')
                .next()
                .is_some_and(|end| !end.contains('-'))
        };
        let mut published =
            bundles.filter(|bundle| bundle["metadata"]["name"].as_str().is_some_and(is));
        if let (Some(bundle), None) = (published.next(), published.next()) {
            return bundle.clone();
        }
        w.pass(Duration::from_millis(100)).await;
    }
    w.vain("one published bundle");
    Value::Null
}

async fn published(w: World) {
    let path = |bundle: &Value| {
        let name = bundle["metadata"]["name"].as_str();
        format!("{BUNDLES}/{}", name.unwrap_or_default())
    };
    let is_right = |bundle: &Value| bundle["spec"]["trustBundle"] == w.authority();
    let first = found(&w).await;
    if !is_right(&first) {
        w.vain("the bundle to be the authority's certificate");
    }
    w.delete_at(&path(&first)).await;
    let second = found(&w).await;
    let same = |field: &str| first["metadata"][field] == second["metadata"][field];
    if !same("name") || same("uid") {
        w.vain("another bundle of the name");
    }
    let changed = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"trustBundle": format!("# changed\n{}", w.authority())},
    });
    w.merge_at(&path(&second), changed).await;
    for _ in 0..100 {
        let third = found(&w).await;
        if is_right(&third) {
            if third["metadata"]["labels"]["a"] != "b" {
                w.vain("the label to stay");
            }
            return;
        }
        w.pass(Duration::from_millis(100)).await;
    }
    w.vain("the bundle to be as it was");
}
