//! Selectors held against labels and fields: one that is written and read selects the same, and
//! so does one that was made of a LabelSelector.

#![no_main]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use libfuzzer_sys::fuzz_target;
use meta::{fields, labels};

type Labels = BTreeMap<String, String>;

fn check(selector: &labels::Selector, labels: &Labels) {
    let written = selector.to_string();
    let again = labels::Selector::parse(&written);
    // A LabelSelector may say what no text does.
    if let Ok(again) = again {
        let selects = selector.matches_labels(Some(labels));
        assert_eq!(again.matches_labels(Some(labels)), selects, "{written}");
    }
    for (key, value) in labels {
        if let Some(needed) = selector.requires_exact_match(key)
            && needed != value
        {
            assert!(!selector.matches_labels(Some(labels)), "{written}");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((text, set)) = fuzz::halves(data) else {
        return;
    };
    let Ok(labels) = serde_json::from_slice::<Labels>(set) else {
        return;
    };
    if let Ok(selector) = serde_json::from_slice::<LabelSelector>(text)
        && let Ok(selector) = labels::Selector::from_label_selector(Some(&selector))
    {
        check(&selector, &labels);
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    if let Ok(selector) = labels::Selector::parse(text) {
        check(&selector, &labels);
    }
    if let Ok(selector) = fields::Selector::parse(text) {
        let written = selector.to_string();
        let again = fields::Selector::parse(&written).expect("what was written is read");
        let get = |field: &str| labels.get(field).map(String::as_str);
        assert_eq!(again.matches(get), selector.matches(get), "{written}");
    }
});
