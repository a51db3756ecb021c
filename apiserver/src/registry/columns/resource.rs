//! Columns of resource.k8s.io.

use super::{AGE, Column, Kinds, NAME, Row, column};

pub(super) const KINDS: Kinds = &[
    ("resource.k8s.io", "ResourceClaim", CLAIM),
    ("resource.k8s.io", "ResourceSlice", SLICE),
];

const CLAIM: &[Column] = &[
    NAME,
    column("State", "string", |row| claim_state(row).into()),
    AGE,
];

fn claim_state(row: &Row<'_>) -> String {
    let deleted = !row.at("/metadata/deletionTimestamp").is_null();
    let allocated = !row.at("/status/allocation").is_null();
    let reserved = allocated && !row.list("/status/reservedFor").is_empty();
    [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ]
    .iter()
    .filter(|(holds, _)| *holds)
    .map(|(_, state)| *state)
    .collect::<Vec<_>>()
    .join(",")
}

const SLICE: &[Column] = &[
    NAME,
    column("Node", "string", |row| row.text("/spec/nodeName").into()),
    column("Driver", "string", |row| row.text("/spec/driver").into()),
    column("Pool", "string", |row| row.text("/spec/pool/name").into()),
    AGE,
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_claims_state_is_all_that_holds() {
        let state = |object: Value| {
            let now = jiff::Timestamp::UNIX_EPOCH;
            claim_state(&Row {
                object: &object,
                now,
            })
        };
        assert_eq!(state(json!({})), "pending");
        let taken = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"},
                           "status": {"allocation": {}, "reservedFor": [{}]}});
        assert_eq!(state(taken), "deleted,allocated,reserved");
    }
}
