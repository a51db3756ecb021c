//! Certificate policies (RFC 5280, 4.2.1.4 and 6.1, as updated by RFC 9618): an authority may say
//! that certificates below it count only under a policy that everybody above them allows.
//!
//! A server asks for no policy in particular, so all that matters in the end is whether any is
//! left where one is required. The last row of RFC 9618's graph tells that: each of its nodes has
//! a way up, since it was made from one of the row before.

use std::collections::BTreeMap;

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

/// A policy by the bytes of its object identifier.
type Policy = Vec<u8>;

/// Stands for every policy: 2.5.29.32.0.
const ANY: [u8; 4] = [0x55, 0x1d, 0x20, 0x00];

/// What a certificate says of policies.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    /// Those that it was made under; none if it does not say.
    pub under: Vec<Policy>,
    /// Names of policies above it, and what they are called below it.
    pub mappings: Vec<(Policy, Policy)>,
    /// After so many more certificates a policy is required.
    pub require_explicit: Option<u32>,
    /// After so many more, policies keep their names.
    pub inhibit_mapping: Option<u32>,
    /// After so many more, [`ANY`] stands for none.
    pub inhibit_any: Option<u32>,
    /// Issued by its own subject; such a certificate does not count.
    pub is_self_issued: bool,
}

impl Policies {
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut said = Self {
            is_self_issued: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            ..Self::default()
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::CertificatePolicies(policies) => {
                    let ids = policies.iter().map(|p| p.policy_id.as_bytes().to_vec());
                    said.under = ids.collect();
                }
                ParsedExtension::PolicyMappings(pairs) => {
                    let pair = |above: &[u8], below: &[u8]| (above.to_vec(), below.to_vec());
                    let pairs = pairs.mappings.iter().map(|m| {
                        let (above, below) = (&m.issuer_domain_policy, &m.subject_domain_policy);
                        pair(above.as_bytes(), below.as_bytes())
                    });
                    said.mappings = pairs.collect();
                }
                ParsedExtension::PolicyConstraints(constraints) => {
                    said.require_explicit = constraints.require_explicit_policy;
                    said.inhibit_mapping = constraints.inhibit_policy_mapping;
                }
                ParsedExtension::InhibitAnyPolicy(inhibit) => {
                    said.inhibit_any = Some(inhibit.skip_certs);
                }
                _ => {}
            }
        }
        said
    }
}

/// Certificates that may still come before something holds.
#[derive(Clone, Copy)]
struct Left(u32);

impl Left {
    fn is_over(self) -> bool {
        self.0 == 0
    }

    fn one_less(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    fn at_most(&mut self, most: Option<u32>) {
        self.0 = most.map_or(self.0, |most| most.min(self.0));
    }
}

/// Policies that hold so far, each with its names in the next certificate.
type Row = BTreeMap<Policy, Vec<Policy>>;

/// Whether the policies of a chain leave one where one is required. The chain begins below the
/// anchor, whose own policies are not looked at, and ends with the client's certificate.
pub(super) fn hold(chain: &[Policies]) -> bool {
    let Some((leaf, authorities)) = chain.split_last() else {
        return true;
    };
    let more_than_all = Left(u32::try_from(chain.len()).map_or(u32::MAX, |n| n.saturating_add(1)));
    let mut explicit = more_than_all;
    let mut mapping = more_than_all;
    let mut any = more_than_all;
    let mut row = Some(Row::from([(ANY.to_vec(), vec![ANY.to_vec()])]));

    for said in authorities {
        row = row.and_then(|row| next(&row, said, !any.is_over() || said.is_self_issued));
        if let Some(row) = &mut row
            && !map(row, said, !mapping.is_over())
        {
            return false;
        }
        if !said.is_self_issued {
            explicit.one_less();
            mapping.one_less();
            any.one_less();
        }
        explicit.at_most(said.require_explicit);
        mapping.at_most(said.inhibit_mapping);
        any.at_most(said.inhibit_any);
    }
    row = row.and_then(|row| next(&row, leaf, !any.is_over()));
    explicit.one_less();
    if leaf.require_explicit == Some(0) {
        explicit = Left(0);
    }
    !explicit.is_over() || row.is_some_and(|row| !row.is_empty())
}

/// The policies of a certificate that hold since those before did; `None` once one has none.
fn next(before: &Row, said: &Policies, any_counts: bool) -> Option<Row> {
    if said.under.is_empty() {
        return None;
    }
    let mut row = Row::new();
    let expected = |policy: &Policy| before.values().any(|names| names.contains(policy));
    let after_any = before.contains_key(ANY.as_slice());
    for policy in said.under.iter().filter(|policy| **policy != ANY) {
        if expected(policy) || after_any {
            row.insert(policy.clone(), vec![policy.clone()]);
        }
    }
    if any_counts && said.under.iter().any(|policy| *policy == ANY) {
        for policy in before.values().flatten() {
            let itself = || vec![policy.clone()];
            row.entry(policy.clone()).or_insert_with(itself);
        }
    }
    Some(row)
}

/// Renames policies as an authority says. Returns whether it may say so.
fn map(row: &mut Row, said: &Policies, may_map: bool) -> bool {
    let mut renamed = Row::new();
    for (above, below) in &said.mappings {
        if !may_map {
            row.remove(above);
        } else if *above == ANY || *below == ANY {
            return false;
        } else {
            renamed
                .entry(above.clone())
                .or_default()
                .push(below.clone());
        }
    }
    let after_any = row.contains_key(ANY.as_slice());
    for (above, names) in renamed {
        if after_any || row.contains_key(&above) {
            row.insert(above, names);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = &[1];
    const TWO: &[u8] = &[2];

    fn under(policies: &[&[u8]]) -> Policies {
        Policies {
            under: policies.iter().map(|p| p.to_vec()).collect(),
            ..Policies::default()
        }
    }

    fn strict(policies: &[&[u8]]) -> Policies {
        Policies {
            require_explicit: Some(0),
            ..under(policies)
        }
    }

    fn renames(policies: &[&[u8]], pairs: &[(&[u8], &[u8])]) -> Policies {
        Policies {
            mappings: (pairs.iter())
                .map(|(above, below)| (above.to_vec(), below.to_vec()))
                .collect(),
            ..under(policies)
        }
    }

    #[test]
    fn a_policy_is_left_where_one_is_required() {
        let nobody_asks = [under(&[]), under(&[ONE]), under(&[])];
        assert!(hold(&nobody_asks));
        assert!(hold(&[under(&[])]));
        assert!(!hold(&[strict(&[])]));
        assert!(hold(&[strict(&[ONE])]));

        assert!(hold(&[strict(&[ONE]), under(&[ONE])]));
        assert!(!hold(&[strict(&[ONE]), under(&[TWO])]));
        assert!(!hold(&[strict(&[ONE]), under(&[])]));
        assert!(hold(&[strict(&[&ANY]), under(&[TWO])]));
        assert!(hold(&[strict(&[ONE]), under(&[&ANY])]));

        let any_is_over = Policies {
            inhibit_any: Some(0),
            ..strict(&[ONE])
        };
        assert!(!hold(&[any_is_over.clone(), under(&[&ANY])]));
        assert!(hold(&[any_is_over, under(&[ONE])]));
    }

    #[test]
    fn policies_are_renamed_on_the_way() {
        let renaming = renames(&[ONE], &[(ONE, TWO)]);
        assert!(hold(&[strict(&[ONE]), renaming.clone(), under(&[TWO])]));
        assert!(!hold(&[strict(&[ONE]), renaming.clone(), under(&[ONE])]));
        let from_any = renames(&[&ANY], &[(ONE, TWO)]);
        assert!(hold(&[strict(&[&ANY]), from_any, under(&[TWO])]));

        let keeps_names = Policies {
            inhibit_mapping: Some(0),
            ..strict(&[ONE])
        };
        assert!(!hold(&[keeps_names, renaming, under(&[TWO])]));
        // Nobody may rename any policy at all, required or not.
        let all = renames(&[ONE], &[(&ANY, TWO)]);
        assert!(!hold(&[all, under(&[])]));
    }

    #[test]
    fn who_issued_itself_does_not_count() {
        let soon = Policies {
            require_explicit: Some(2),
            ..under(&[ONE])
        };
        let anew = Policies {
            is_self_issued: true,
            ..under(&[])
        };
        assert!(hold(&[soon.clone(), anew, under(&[])]));
        assert!(!hold(&[soon, under(&[]), under(&[])]));
    }
}
