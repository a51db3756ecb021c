//! `registerWithTaints`.

use k8s_openapi::api::core::v1::Taint;
use meta::validation::{label_value, qualified_name};

use super::{Context, Errors};

pub fn judge(context: &Context<'_>, errors: &mut Errors) {
    for taint in &context.config.register_with_taints {
        let added = taint.time_added.as_ref().map(|added| added.0.to_string());
        if !is_valid(taint) {
            errors.push(format!(
                "invalid taint: {{{} {} {} {}}}",
                taint.key,
                taint.value.as_deref().unwrap_or_default(),
                taint.effect,
                added.as_deref().unwrap_or("<nil>")
            ));
        }
        errors.wrong_if(added.is_some(), "taint.TimeAdded is not nil");
    }
}

fn is_valid(taint: &Taint) -> bool {
    let value = taint.value.as_deref().unwrap_or_default();
    let effects = ["", "NoSchedule", "PreferNoSchedule", "NoExecute"];
    qualified_name(&taint.key).is_empty()
        && label_value(value).is_empty()
        && effects.contains(&taint.effect.as_str())
}
