//! `imagePullCredentialsVerificationPolicy`: for which images credentials are asked for again. Pure.

use crate::images::reference::without_tag;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    NeverVerify,
    /// Those that the kubelet has not pulled are everybody's.
    NeverVerifyPreloadedImages,
    /// Those are everybody's whose name is here, or begins as one that ends with a slash.
    NeverVerifyAllowlistedImages(Vec<String>),
    AlwaysVerify,
}

impl Policy {
    /// # Errors
    /// When there is no such policy, or it has no use for the patterns.
    pub fn parse(name: &str, allowed: &[String]) -> Result<Self, String> {
        let policy = match name {
            "NeverVerify" => Self::NeverVerify,
            // Upstream's default.
            "" | "NeverVerifyPreloadedImages" => Self::NeverVerifyPreloadedImages,
            "NeverVerifyAllowlistedImages" => {
                let patterns = allowed.iter().map(|text| pattern(text));
                let patterns = patterns.collect::<Result<_, _>>().map_err(|why| {
                    format!(
                        "invalid image pattern in `preloadedImagesVerificationAllowlist`: {why}"
                    )
                });
                return Ok(Self::NeverVerifyAllowlistedImages(patterns?));
            }
            "AlwaysVerify" => Self::AlwaysVerify,
            _ => {
                return Err(format!(
                    "option {name:?} specified for imagePullCredentialsVerificationPolicy. Valid options are \
                     \"NeverVerify\", \"NeverVerifyPreloadedImages\", \"NeverVerifyAllowlistedImages\" or \"AlwaysVerify\""
                ));
            }
        };
        match allowed {
            [] => Ok(policy),
            _ => Err(
                "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not \
                 \"NeverVerifyAllowlistedImages\""
                    .into(),
            ),
        }
    }

    /// Whether credentials are asked for. `ours`: the kubelet has pulled it, or begun to.
    pub fn verifies(&self, name: &str, ours: bool) -> bool {
        match self {
            Self::NeverVerify => false,
            Self::NeverVerifyPreloadedImages => ours,
            Self::AlwaysVerify => true,
            Self::NeverVerifyAllowlistedImages(allowed) => {
                let fits = |text: &String| {
                    name == text || text.ends_with('/') && name.starts_with(text.as_str())
                };
                !allowed.iter().any(fits)
            }
        }
    }
}

fn pattern(text: &str) -> Result<String, String> {
    if text != text.trim() {
        return Err(format!("leading/trailing spaces are not allowed: {text}"));
    }
    let (bare, prefix) = match text.strip_suffix("/*") {
        Some(_) => (&text[..text.len() - 1], true),
        None => (text, false),
    };
    if bare.is_empty() {
        return Err(format!("the supplied pattern is too short: {text}"));
    }
    if bare.contains('*') {
        return Err(format!(
            "not a valid wildcard pattern, only patterns ending with '/*' are allowed: {text}"
        ));
    }
    if prefix && bare.len() == 1 {
        return Err("at least registry hostname is required".into());
    }
    if !prefix {
        let name = without_tag(bare);
        let name = name.ok_or("failed to parse as an image name: invalid reference format")?;
        if name != bare {
            return Err(format!(
                "neither tag nor digest is accepted in an image reference: {text}"
            ));
        }
    }
    Ok(bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowing(patterns: &[&str]) -> Result<Policy, String> {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Policy::parse("NeverVerifyAllowlistedImages", &patterns)
    }

    #[test]
    fn policies() {
        let parse = |name| Policy::parse(name, &[]).unwrap();
        assert!(!parse("NeverVerify").verifies("a.io/x", true));
        assert!(parse("AlwaysVerify").verifies("a.io/x", false));
        let preloaded = parse("NeverVerifyPreloadedImages");
        assert!(preloaded.verifies("a.io/x", true) && !preloaded.verifies("a.io/x", false));
        let some = allowing(&["a.io/x", "b.io/*"]).unwrap();
        for (name, verified) in [("a.io/x", false), ("a.io/xy", true), ("b.io/y/z", false)] {
            assert_eq!(some.verifies(name, true), verified, "{name}");
        }
        assert!(Policy::parse("Some", &[]).is_err());
        assert!(Policy::parse("NeverVerify", &["a".into()]).is_err());
        for wrong in [" a", "", "/*", "a*/*", "a.io/x:1", "A.io/X"] {
            assert!(allowing(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
