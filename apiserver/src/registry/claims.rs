//! Where a PersistentVolumeClaim's content comes from: an old field and a new one, of which the
//! server keeps both alike.
//!
//! Pure; what must not be here: validation.

use serde_json::{Value, json};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What the old field could always name. Anything else in it is ignored, as it was before there
/// was the new one (KEP-1495).
fn is_claim_or_snapshot(source: &Value) -> bool {
    match (text(source, "apiGroup"), text(source, "kind")) {
        ("", kind) => kind == "PersistentVolumeClaim",
        (group, kind) => group == "snapshot.storage.k8s.io" && kind == "VolumeSnapshot",
    }
}

fn is_set(spec: &Value, field: &str) -> bool {
    spec.get(field).is_some_and(|value| !value.is_null())
}

/// Takes out what the old field could never name, of a new claim or one that came from nowhere.
fn drop_unknown_source(claim: &mut Value, before: Option<&Value>) {
    let (old, new) = ("dataSource", "dataSourceRef");
    if before.is_some_and(|b| is_set(&b["spec"], old) || is_set(&b["spec"], new)) {
        return;
    }
    let Some(spec) = claim.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    if is_set(spec, old)
        && !is_set(spec, new)
        && !is_claim_or_snapshot(&spec[old])
        && let Some(members) = spec.as_object_mut()
    {
        members.remove(old);
    }
}

/// Makes `dataSource` and `dataSourceRef` of a claim alike that is to be written.
pub fn settle_source(claim: &mut Value, before: Option<&Value>) {
    drop_unknown_source(claim, before);
    fill_source(claim);
}

/// Fills in the one of `dataSource` and `dataSourceRef` that is missing.
pub fn fill_source(claim: &mut Value) {
    let Some(spec) = claim.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    let (old, new) = ("dataSource", "dataSourceRef");
    match (is_set(spec, old), is_set(spec, new)) {
        (true, false) => spec[new] = spec[old].clone(),
        (false, true) if text(&spec[new], "namespace").is_empty() => {
            let mut source = json!({});
            for field in ["apiGroup", "kind", "name"] {
                if let Some(value) = spec[new].get(field) {
                    source[field] = value.clone();
                }
            }
            spec[old] = source;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fields_say_the_same() {
        let snapshot =
            json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
        let mut claim = json!({"spec": {"dataSource": snapshot}});
        settle_source(&mut claim, None);
        assert_eq!(claim["spec"]["dataSourceRef"], snapshot);
        let mut claim = json!({"spec": {"dataSourceRef": {"kind": "K", "name": "n"}}});
        settle_source(&mut claim, None);
        assert_eq!(
            claim["spec"]["dataSource"],
            json!({"kind": "K", "name": "n"})
        );
        let mut claim = json!({"spec": {"dataSource": {"kind": "K", "name": "n"}}});
        settle_source(&mut claim, None);
        assert_eq!(claim, json!({"spec": {}}));
        let odd = json!({"spec": {"dataSource": {"kind": "K"}}});
        let mut changed = odd.clone();
        drop_unknown_source(&mut changed, Some(&odd));
        assert_eq!(changed, odd);
        drop_unknown_source(&mut changed, Some(&claim));
        assert_eq!(changed, claim);
    }
}
