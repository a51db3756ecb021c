//! The SELinux labels that pods want their volumes to have.

use std::fmt;

use serde::Deserialize;

/// A label, of which a container's options may leave parts out: nodes fill those in, each with
/// what its system has, and nobody else knows those.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Box<str>);

/// `seLinuxOptions` of a pod or a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Options {
    user: Box<str>,
    role: Box<str>,
    r#type: Box<str>,
    level: Box<str>,
}

impl Label {
    /// `None` of options that say nothing.
    pub fn of(options: &Options) -> Option<Self> {
        let parts = [
            &*options.user,
            &*options.role,
            &*options.r#type,
            &*options.level,
        ];
        let says = parts.iter().any(|part| !part.is_empty());
        says.then(|| Self(parts.join(":").into()))
    }

    /// `user:role:type:level`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether what has one label cannot have the other. A part that is left out may become anything,
/// but for the level, which no node fills in.
pub fn conflict(a: Option<&Label>, b: Option<&Label>) -> bool {
    let parts = |label: Option<&'_ Label>| {
        let mut parts = label.map_or("", Label::as_str).splitn(4, ':');
        // The level has colons of its own.
        [(); 4].map(|()| parts.next().unwrap_or_default().to_owned())
    };
    let (a, b) = (parts(a), parts(b));
    let unlike = |i: usize| a[i] != b[i] && !a[i].is_empty() && !b[i].is_empty();
    a[3] != b[3] || (0..3).any(unlike)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Option<Label> {
        (!text.is_empty()).then(|| Label(text.into()))
    }

    #[test]
    fn options_that_say_nothing_are_no_label() {
        let of = |json: &str| Label::of(&serde_json::from_str(json).unwrap());
        assert_eq!(of("{}"), None);
        assert_eq!(of(r#"{"level": "s0:c1,c2"}"#), label(":::s0:c1,c2"));
        let all = r#"{"user": "u", "role": "r", "type": "t", "level": "s0"}"#;
        assert_eq!(of(all).unwrap().to_string(), "u:r:t:s0");
    }

    #[test]
    fn labels_that_cannot_be_the_same() {
        for (a, b, expected) in [
            ("", "", false),
            ("u:r:t:s0", "u:r:t:s0", false),
            ("u:r:t:s0:c1", ":::s0:c1", false),
            ("u:r:t:s0:c1", ":::s0:c2", true),
            (":::s0", "", true),
            ("u:r:t:s0", "", true),
            ("u:r:t:", "", false),
            ("u:r:t:s0", "u:r:x:s0", true),
            ("u:r:t:s0", "u:r::s0", false),
            ("u::t:s0", "x:r:t:s0", true),
            ("u:r:t:s0", "u:x:t:s0", true),
            ("u:::s0", ":r::s0", false),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                let (a, b) = (label(a), label(b));
                assert_eq!(conflict(a.as_ref(), b.as_ref()), expected, "{a:?} {b:?}");
            }
        }
    }
}
