//! `topologyManagerPolicyOptions`.

use std::collections::BTreeMap;

use crate::cpus::parse_bool;

/// Nodes up to which every set of them is looked at, unless more are allowed.
const MAX_NODES: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopologyOptions {
    /// Of sets of equally many nodes, those are best that are near to each other (KEP-3545).
    pub prefer_closest: bool,
    /// Machines with more nodes are not for policies other than `none`.
    pub max_nodes: usize,
}

impl TopologyOptions {
    /// # Errors
    /// For options that there are not, and values that make no sense.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut parsed = Self {
            prefer_closest: false,
            max_nodes: MAX_NODES,
        };
        for (name, value) in options {
            match name.as_str() {
                "prefer-closest-numa-nodes" => parsed.prefer_closest = parse_bool(name, value)?,
                "max-allowable-numa-nodes" => {
                    parsed.max_nodes = value.parse().map_err(|_| {
                        format!("unable to convert policy option to integer {name:?}: {value:?}")
                    })?;
                    if parsed.max_nodes < MAX_NODES {
                        return Err(format!(
                            "the minimum value of {name:?} should not be less than {MAX_NODES}"
                        ));
                    }
                }
                _ => return Err(format!("unknown Topology Manager Policy option: {name:?}")),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |name: &str, value: &str| {
            TopologyOptions::parse(&[(name.to_owned(), value.to_owned())].into())
        };
        assert!(
            parse("prefer-closest-numa-nodes", "true")
                .unwrap()
                .prefer_closest
        );
        assert_eq!(
            parse("max-allowable-numa-nodes", "16").unwrap().max_nodes,
            16
        );
        for (name, value) in [
            ("max-allowable-numa-nodes", "7"),
            ("max-allowable-numa-nodes", "x"),
            ("prefer-closest-numa-nodes", "x"),
            ("other", "true"),
        ] {
            assert!(parse(name, value).is_err(), "{name}={value}");
        }
    }
}
