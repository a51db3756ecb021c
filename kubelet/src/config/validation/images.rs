//! Who may use images that others have pulled.

use meta::gofmt::Quoted;

use super::{Context, Errors};
use crate::images::Reference;

pub fn judge(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    let policy = c.image_pull_credentials_verification_policy.as_str();
    let allowed = &c.preloaded_images_verification_allowlist;
    if !context.gates.enabled("KubeletEnsureSecretPulledImages") {
        for (field, is_set) in [
            ("imagePullCredentialsVerificationPolicy", !policy.is_empty()),
            ("preloadedImagesVerificationAllowlist", !allowed.is_empty()),
        ] {
            errors.wrong_if(
                is_set,
                format!(
                    "`{field}` must not be set if KubeletEnsureSecretPulledImages feature gate is not enabled"
                ),
            );
        }
        return;
    }
    let known = [
        "NeverVerify",
        "NeverVerifyPreloadedImages",
        "NeverVerifyAllowlistedImages",
        "AlwaysVerify",
    ];
    errors.wrong_if(
        !known.contains(&policy),
        format!(
            "option {} specified for imagePullCredentialsVerificationPolicy. Valid options are \"NeverVerify\", \
             \"NeverVerifyPreloadedImages\", \"NeverVerifyAllowlistedImages\" or \"AlwaysVerify\"",
            Quoted(policy)
        ),
    );
    if !allowed.is_empty() && policy != "NeverVerifyAllowlistedImages" {
        errors.wrong(
            "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not \
             \"NeverVerifyAllowlistedImages\"",
        );
    } else if let Some(why) = allowed.iter().find_map(|pattern| problem(pattern)) {
        errors.wrong(format!(
            "invalid image pattern in `preloadedImagesVerificationAllowlist`: {why}"
        ));
    }
}

/// What is wrong with a pattern: an image without tag and digest, or `registry/path/*`.
fn problem(pattern: &str) -> Option<String> {
    if pattern != pattern.trim() {
        return Some(format!(
            "leading/trailing spaces are not allowed: {pattern}"
        ));
    }
    let prefix = match pattern.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('/') => Some(prefix),
        _ => None,
    };
    let bare = prefix.unwrap_or(pattern);
    if bare.is_empty() {
        return Some(format!("the supplied pattern is too short: {pattern}"));
    }
    if bare.contains('*') {
        return Some(format!(
            "not a valid wildcard pattern, only patterns ending with '/*' are allowed: {pattern}"
        ));
    }
    if prefix.is_some() {
        return (bare == "/").then(|| "at least registry hostname is required".to_owned());
    }
    match Reference::parse(bare) {
        Err(error) => Some(format!("failed to parse as an image name: {error}")),
        Ok(image) => (image.tag.is_some() || image.digest.is_some()).then(|| {
            format!("neither tag nor digest is accepted in an image reference: {pattern}")
        }),
    }
}
