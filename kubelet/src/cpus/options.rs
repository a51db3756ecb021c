//! `cpuManagerPolicyOptions`, each a variation of the static policy.

use std::collections::BTreeMap;

use component::features::FeatureGates;

/// Those that are on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StaticOptions {
    /// Whole cores only, so that no core is shared (KEP-2625).
    pub full_cores: bool,
    /// Evenly from as few NUMA nodes as it takes (KEP-2902).
    pub across_numa: bool,
    /// What is near is what is on the same socket (KEP-3327).
    pub by_socket: bool,
    /// From as many cores as there are (KEP-4176).
    pub across_cores: bool,
    /// Reserved CPUs are nobody's, not even of those that share (KEP-4540).
    pub strict_reservation: bool,
    /// Of one cache where that can be (KEP-4800).
    pub by_uncore_cache: bool,
}

const FULL_CORES: &str = "full-pcpus-only";
const ACROSS_NUMA: &str = "distribute-cpus-across-numa";
const BY_SOCKET: &str = "align-by-socket";
const ACROSS_CORES: &str = "distribute-cpus-across-cores";
const STRICT: &str = "strict-cpu-reservation";
const BY_UNCORE: &str = "prefer-align-cpus-by-uncorecache";

/// A boolean as Go reads it.
pub fn parse_bool(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "bad value for option {name:?}: strconv.ParseBool: parsing {value:?}: invalid syntax"
        )),
    }
}

impl StaticOptions {
    /// # Errors
    /// For options that there are not, are not yet for everyone, or that contradict each other.
    pub fn parse(options: &BTreeMap<String, String>, gates: &FeatureGates) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (name, value) in options {
            let (option, gate) = match name.as_str() {
                FULL_CORES => (&mut parsed.full_cores, None),
                ACROSS_NUMA => (&mut parsed.across_numa, Some("Beta")),
                BY_SOCKET => (&mut parsed.by_socket, Some("Alpha")),
                ACROSS_CORES => (&mut parsed.across_cores, Some("Alpha")),
                STRICT => (&mut parsed.strict_reservation, None),
                BY_UNCORE => (&mut parsed.by_uncore_cache, None),
                _ => return Err(format!("unknown CPU Manager Policy option: {name:?}")),
            };
            let closed = |stage: &&str| !gates.enabled(&format!("CPUManagerPolicy{stage}Options"));
            if let Some(stage) = gate.filter(closed) {
                return Err(format!(
                    "CPU Manager Policy {stage}-level Options not enabled, but option {name:?} provided"
                ));
            }
            *option = parse_bool(name, value)?;
        }
        for (a, b, names) in [
            (
                parsed.full_cores,
                parsed.across_cores,
                [FULL_CORES, ACROSS_CORES],
            ),
            (
                parsed.across_numa,
                parsed.across_cores,
                [ACROSS_NUMA, ACROSS_CORES],
            ),
            (
                parsed.by_uncore_cache,
                parsed.across_cores,
                [BY_UNCORE, ACROSS_CORES],
            ),
            (
                parsed.by_uncore_cache,
                parsed.across_numa,
                [BY_UNCORE, ACROSS_NUMA],
            ),
        ] {
            if a && b {
                let [a, b] = names;
                return Err(format!(
                    "static policy options {a} and {b} can not be used at the same time"
                ));
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
        let parse = |options: &[(&str, &str)], gates: &str| {
            let options = options
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            StaticOptions::parse(&options.collect(), &FeatureGates::parse(gates).unwrap())
        };
        let both = parse(&[(FULL_CORES, "true"), (ACROSS_NUMA, "1")], "").unwrap();
        assert!(both.full_cores && both.across_numa && !both.by_socket);
        for (options, gates, why) in [
            (&[("x", "true")][..], "", "unknown CPU Manager"),
            (&[(FULL_CORES, "yes")], "", "bad value for option"),
            (
                &[(BY_SOCKET, "true")],
                "",
                "Alpha-level Options not enabled",
            ),
            (
                &[(ACROSS_NUMA, "true")],
                "CPUManagerPolicyBetaOptions=false",
                "Beta-level",
            ),
            (
                &[(FULL_CORES, "true"), (ACROSS_CORES, "true")],
                "CPUManagerPolicyAlphaOptions=true",
                "can not be used at the same time",
            ),
        ] {
            let error = parse(options, gates).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
