//! Which bundles of a signer are to be written and which are to go: pure.

use std::sync::Arc;

use client::Object as _;
use sha2::{Digest as _, Sha256};

use super::bundle::{Bundle, Spec};

/// How many bytes of the content's hash are in the name.
const HASHED: usize = 12;

#[derive(Debug, PartialEq)]
pub enum Write {
    Create(Bundle),
    Replace(Bundle),
}

/// What is to be done, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub write: Option<Write>,
    /// Names.
    pub delete: Vec<String>,
}

/// The signer with a colon for its slash, as the API demands of the names of its bundles, and
/// what tells one content from another.
fn name(signer: &str, ca: &str) -> String {
    let hash = Sha256::digest(ca);
    let hex: String = hash[..HASHED].iter().map(|b| format!("{b:02x}")).collect();
    format!("{}:{hex}", signer.replace('/', ":"))
}

/// Of a signer there is one bundle. `known` are those that there are.
pub fn plan(known: &[Arc<Bundle>], signer: &str, ca: &str) -> Plan {
    let name = name(signer, ca);
    let write = match known.iter().find(|bundle| bundle.name() == name) {
        None => Some(Write::Create(Bundle::new(
            name.clone(),
            Spec {
                signer_name: signer.to_owned(),
                trust_bundle: ca.to_owned(),
            },
        ))),
        Some(bundle) if bundle.spec.trust_bundle == ca => None,
        // Somebody has changed it.
        Some(bundle) => {
            let mut bundle = Bundle::clone(bundle);
            ca.clone_into(&mut bundle.spec.trust_bundle);
            Some(Write::Replace(bundle))
        }
    };
    let others = known.iter().map(|bundle| bundle.name());
    let mut delete: Vec<String> = others
        .filter(|other| *other != name)
        .map(str::to_owned)
        .collect();
    delete.sort_unstable();
    Plan { write, delete }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER: &str = "example.com/signer";

    fn spec(ca: &str) -> Spec {
        Spec {
            signer_name: SIGNER.to_owned(),
            trust_bundle: ca.to_owned(),
        }
    }

    fn known(all: &[(&str, &str)]) -> Vec<Arc<Bundle>> {
        let bundle = |(name, ca): &(&str, &str)| {
            let mut bundle = Bundle::new((*name).to_owned(), spec(ca));
            bundle.metadata.resource_version = Some("7".to_owned());
            bundle.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
            Arc::new(bundle)
        };
        all.iter().map(bundle).collect()
    }

    #[test]
    fn there_is_one_bundle_and_it_is_right() {
        // The first 12 bytes of sha256 of "CA".
        let right = "example.com:signer:4b650e5c4785025dee7bd65e";
        assert_eq!(name(SIGNER, "CA"), right);
        let create = || Some(Write::Create(Bundle::new(right.to_owned(), spec("CA"))));
        let replace = || {
            let mut bundle = Bundle::clone(&known(&[(right, "CB")])[0]);
            bundle.spec.trust_bundle = "CA".to_owned();
            Some(Write::Replace(bundle))
        };
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<Write>, &'a [&'a str]);
        let cases: [Case<'_>; 6] = [
            (&[], create(), &[]),
            (&[(right, "CA")], None, &[]),
            (&[(right, "CB")], replace(), &[]),
            // After a change of the CA, at any point of it.
            (&[("old", "CB")], create(), &["old"]),
            (&[("old", "CB"), (right, "CA")], None, &["old"]),
            (
                &[("older", "CA"), (right, "CB"), ("old", "CB")],
                replace(),
                &["old", "older"],
            ),
        ];
        for (there, write, delete) in cases {
            let plan = plan(&known(there), SIGNER, "CA");
            assert_eq!(plan.write, write, "{there:?}");
            assert_eq!(plan.delete, delete, "{there:?}");
        }
    }
}
