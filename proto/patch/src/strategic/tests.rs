use schema::{ListType, Omit};
use serde_json::json;

use super::*;

fn field(json: &'static str, ty: Type, cardinality: Cardinality) -> Field {
    Field {
        json,
        number: 1,
        ty,
        cardinality,
        pointer: false,
        omit: Omit::Empty,
        required: false,
        list_type: ListType::Unset,
        list_map_keys: &[],
        patch_strategy: PatchStrategy::Unset,
        patch_merge_key: None,
        default: None,
        enum_values: &[],
        format: None,
    }
}

fn merging(json: &'static str, ty: Type, key: Option<&'static str>) -> Field {
    Field {
        patch_strategy: PatchStrategy::Merge,
        patch_merge_key: key,
        ..field(json, ty, Cardinality::List)
    }
}

fn message(name: &'static str, fields: Vec<Field>) -> &'static Message {
    let mut by_json: Vec<u16> = (0..fields.len() as u16).collect();
    by_json.sort_by_key(|i| fields[*i as usize].json);
    Box::leak(Box::new(Message {
        name,
        fields: fields.leak(),
        by_number: &[],
        by_json: by_json.leak(),
        atomic: false,
        unions: &[],
        holds_raw: false,
        holds_field_sets: false,
        holds_bytes: false,
        gvks: &[],
    }))
}

/// A type with one field of every kind, two levels deep, the shape upstream's own cases use.
fn item() -> &'static Message {
    let scalars = || ["name", "value", "other"].map(|n| field(n, Type::String, Cardinality::One));
    let leaf = message(
        "test.v1.Leaf",
        scalars()
            .into_iter()
            .chain([merging("mergingIntList", Type::Int64, None)])
            .collect(),
    );
    let nested = message(
        "test.v1.Nested",
        scalars()
            .into_iter()
            .chain([
                merging("mergingList", Type::Message(leaf), Some("name")),
                field("nonMergingList", Type::Message(leaf), Cardinality::List),
                merging("mergingIntList", Type::Int64, None),
                field("simpleMap", Type::String, Cardinality::Map),
            ])
            .collect(),
    );
    message(
        "test.v1.Item",
        scalars()
            .into_iter()
            .chain([
                merging("mergingList", Type::Message(nested), Some("name")),
                field("nonMergingList", Type::Message(nested), Cardinality::List),
                merging("mergingIntList", Type::Int64, None),
                field("nonMergingIntList", Type::Int64, Cardinality::List),
                field("simpleMap", Type::String, Cardinality::Map),
                Field {
                    patch_strategy: PatchStrategy::Replace,
                    ..field("replacingItem", Type::Message(nested), Cardinality::One)
                },
                Field {
                    patch_strategy: PatchStrategy::RetainKeys,
                    ..field("retainKeysMap", Type::Message(nested), Cardinality::One)
                },
                Field {
                    patch_strategy: PatchStrategy::MergeRetainKeys,
                    ..merging("retainKeysMergingList", Type::Message(nested), Some("name"))
                },
            ])
            .collect(),
    )
}

fn patched(original: Value, patch: Value) -> Result<Value> {
    apply(original, patch, item())
}

#[track_caller]
fn check(original: Value, patch: Value, want: Value) {
    assert_eq!(
        patched(original.clone(), patch.clone()),
        Ok(want),
        "{original} + {patch}"
    );
}

#[test]
fn maps_merge_and_null_deletes() {
    check(
        json!({"name": "a", "value": "b", "simpleMap": {"k": "1", "l": "2"}}),
        json!({"value": null, "other": "c", "simpleMap": {"l": null, "m": "3"}, "nonMergingIntList": null}),
        json!({"name": "a", "other": "c", "simpleMap": {"k": "1", "m": "3"}}),
    );
    check(
        json!({}),
        json!({"simpleMap": {"a": null, "b": "1"}}),
        json!({"simpleMap": {"b": "1"}}),
    );
}

#[test]
fn lists_merge_by_key_or_are_replaced() {
    check(
        json!({"mergingList": [{"name": "1", "value": "x"}, {"name": "2"}],
               "nonMergingList": [{"name": "1"}]}),
        json!({"mergingList": [{"name": "2", "value": "y"}, {"name": "3"}],
               "nonMergingList": [{"name": "9"}]}),
        json!({"mergingList": [{"name": "1", "value": "x"}, {"name": "2", "value": "y"}, {"name": "3"}],
               "nonMergingList": [{"name": "9"}]}),
    );
    check(
        json!({"mergingList": [{"name": "1"}, {"name": "2", "value": "b"}, {"name": "3"}]}),
        json!({"mergingList": [{"name": "3", "value": "c"}, {"name": "1", "value": "a"},
                               {"name": "2", "other": "x"}]}),
        json!({"mergingList": [{"name": "3", "value": "c"}, {"name": "1", "value": "a"},
                               {"name": "2", "value": "b", "other": "x"}]}),
    );
    check(
        json!({"mergingIntList": [1, 2, 3]}),
        json!({"mergingIntList": [3, 4, 1]}),
        json!({"mergingIntList": [2, 3, 4, 1]}),
    );
}

#[test]
fn patch_directives_replace_and_delete() {
    check(
        json!({"mergingList": [{"name": "1"}, {"name": "2"}, {"name": "2", "value": "twin"}]}),
        json!({"mergingList": [{"name": "2", "$patch": "delete"}, {"name": "7", "$patch": "delete"}]}),
        json!({"mergingList": [{"name": "1"}]}),
    );
    check(
        json!({"mergingList": [{"name": "1"}, {"name": "2"}]}),
        json!({"mergingList": [{"name": "3"}, {"$patch": "replace"}]}),
        json!({"mergingList": [{"name": "3"}]}),
    );
    check(
        json!({"simpleMap": {"a": "1"}, "name": "n"}),
        json!({"simpleMap": {"b": "2", "$patch": "replace"}}),
        json!({"simpleMap": {"b": "2"}, "name": "n"}),
    );
    check(json!({"name": "n"}), json!({"$patch": "delete"}), json!({}));
    check(
        json!({"replacingItem": {"name": "a", "value": "b"}}),
        json!({"replacingItem": {"name": "c"}}),
        json!({"replacingItem": {"name": "c"}}),
    );
    // A directive for what is not there leaves nothing behind.
    check(
        json!({"name": "n"}),
        json!({"mergingList": [{"name": "1", "$patch": "delete"}, {"name": "2"}],
               "retainKeysMap": {"$patch": "delete"}}),
        json!({"name": "n", "mergingList": [{"name": "2"}]}),
    );
}

#[test]
fn primitives_are_taken_out_by_a_parallel_list() {
    check(
        json!({"mergingIntList": [1, 2, 3]}),
        json!({"$deleteFromPrimitiveList/mergingIntList": [2, 9], "mergingIntList": [4]}),
        // What is new comes first when the patch says no order.
        json!({"mergingIntList": [4, 1, 3]}),
    );
    check(
        json!({"mergingList": [{"name": "1", "mergingIntList": [1, 2]}]}),
        json!({"mergingList": [{"name": "1", "$deleteFromPrimitiveList/mergingIntList": [1]}]}),
        json!({"mergingList": [{"name": "1", "mergingIntList": [2]}]}),
    );
}

#[test]
fn element_order_is_the_patchs_with_server_items_woven_in() {
    check(
        json!({"mergingList": [{"name": "1"}, {"name": "s"}, {"name": "3"}]}),
        json!({"$setElementOrder/mergingList": [{"name": "3"}, {"name": "2"}, {"name": "1"}],
               "mergingList": [{"name": "3", "value": "3"}, {"name": "1", "value": "1"}]}),
        json!({"mergingList": [{"name": "s"}, {"name": "3", "value": "3"}, {"name": "1", "value": "1"}]}),
    );
    check(
        json!({"mergingIntList": [1, 3]}),
        json!({"$setElementOrder/mergingIntList": [3, 2, 1]}),
        json!({"mergingIntList": [3, 1]}),
    );
    let out_of_order = patched(
        json!({"mergingList": [{"name": "1"}, {"name": "3"}]}),
        json!({"$setElementOrder/mergingList": [{"name": "1"}, {"name": "3"}],
               "mergingList": [{"name": "3", "value": "3"}, {"name": "1", "value": "1"}]}),
    );
    assert!(
        matches!(out_of_order, Err(Error::Schema(m)) if m.starts_with("The order in patch list"))
    );
}

#[test]
fn retain_keys_clears_the_rest() {
    check(
        json!({"retainKeysMap": {"name": "foo", "value": "a", "other": "x"}}),
        json!({"retainKeysMap": {"$retainKeys": ["name", "simpleMap"], "simpleMap": {"k": "v"}}}),
        json!({"retainKeysMap": {"name": "foo", "simpleMap": {"k": "v"}}}),
    );
    check(
        json!({"retainKeysMergingList": [{"name": "bar"}, {"name": "foo", "value": "a"}]}),
        json!({"retainKeysMergingList": [{"name": "foo", "$retainKeys": ["name", "other"], "other": "b"}]}),
        json!({"retainKeysMergingList": [{"name": "bar"}, {"name": "foo", "other": "b"}]}),
    );
    assert_eq!(
        patched(
            json!({"retainKeysMap": {"name": "foo"}}),
            json!({"retainKeysMap": {"$retainKeys": ["name"], "value": "b"}}),
        ),
        Err(Error::Malformed(
            "invalid patch format of retainKeys".into()
        ))
    );
}

#[test]
fn what_contradicts_the_schema_is_named() {
    assert_eq!(
        patched(json!({"bogus": {"a": 1}}), json!({"bogus": {"a": 2}})),
        Err(Error::Schema(
            "unable to find api field in struct Item for the json field \"bogus\"".into()
        ))
    );
    // An unknown field that is new is for strict decoding to judge.
    check(json!({}), json!({"bogus": 1}), json!({"bogus": 1}));
    assert!(matches!(
        patched(json!({"mergingList": [{"name": "1"}]}), json!({"mergingList": [{"value": "1"}]})),
        Err(Error::Schema(m)) if m.ends_with("does not contain declared merge key: name")
    ));
    assert!(matches!(
        patched(
            json!({"mergingIntList": [[1]]}),
            json!({"mergingIntList": [[2]]})
        ),
        Err(Error::Inapplicable(_))
    ));
    assert!(matches!(
        patched(json!({"name": "a"}), json!({"$patch": "bogus"})),
        Err(Error::Schema(m)) if m.starts_with("unknown patch type: bogus")
    ));
}

#[test]
fn what_is_added_takes_the_place_of_what_is_deleted() {
    check(
        json!({"mergingList": [{"name": 1}, {"name": 2}, {"name": 4}]}),
        json!({"$setElementOrder/mergingList": [{"name": 2}, {"name": 3}],
               "mergingList": [{"name": 3}, {"$patch": "delete", "name": 1}]}),
        json!({"mergingList": [{"name": 2}, {"name": 4}, {"name": 3}]}),
    );
}
