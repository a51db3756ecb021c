//! Cluster CIDRs and the sizes of nodes' parts, out of five flags.

use ipnet::IpNet;

use super::{GenericFlags, NodeIpamFlags, OptionsError};

const DEFAULT_MASK_IPV4: u8 = 24;
const DEFAULT_MASK_IPV6: u8 = 64;

/// What nodes get addresses from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCidrs {
    /// Each range with the mask of a node's part. Two for dual stack.
    pub clusters: Vec<(IpNet, u8)>,
    /// Ranges that nodes must not get.
    pub services: Vec<IpNet>,
}

fn cidrs(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|s| !s.is_empty())
}

pub(super) fn resolve(
    generic: &GenericFlags,
    flags: &NodeIpamFlags,
) -> Result<Option<NodeCidrs>, OptionsError> {
    if !generic.allocate_node_cidrs {
        return Ok(None);
    }
    if generic.cidr_allocator_type != "RangeAllocator" {
        return Err(OptionsError::CloudAllocator(
            generic.cidr_allocator_type.clone(),
        ));
    }
    let parse = |text: &str| -> Result<IpNet, OptionsError> {
        text.parse()
            .map_err(|_| OptionsError::BadCidr(text.to_owned()))
    };
    let clusters: Vec<IpNet> = cidrs(&generic.cluster_cidr)
        .map(parse)
        .collect::<Result<_, _>>()?;
    let is_v6 = |net: &IpNet| matches!(net, IpNet::V6(_));
    let single_v6 = match &clusters[..] {
        [] => return Err(OptionsError::NoClusterCidr),
        [one] => Some(is_v6(one)),
        [a, b] if is_v6(a) != is_v6(b) => None,
        _ => return Err(OptionsError::NotDualStack),
    };
    let (both, v4, v6) = (
        flags.node_cidr_mask_size,
        flags.node_cidr_mask_size_ipv4,
        flags.node_cidr_mask_size_ipv6,
    );
    match single_v6 {
        None if both != 0 => return Err(OptionsError::MaskWithDualStack),
        Some(_) if both != 0 && (v4 != 0 || v6 != 0) => return Err(OptionsError::MaskTwice),
        Some(true) if v4 != 0 => return Err(OptionsError::MaskOfOtherFamily("ipv4")),
        Some(false) if v6 != 0 => return Err(OptionsError::MaskOfOtherFamily("ipv6")),
        _ => {}
    }
    let first_set = |masks: [u8; 3]| masks.into_iter().find(|m| *m != 0).unwrap_or(0);
    let clusters = clusters.into_iter().map(|net| {
        let mask = if is_v6(&net) {
            first_set([both, v6, DEFAULT_MASK_IPV6])
        } else {
            first_set([both, v4, DEFAULT_MASK_IPV4])
        };
        (net, mask)
    });
    let services = cidrs(&flags.service_cluster_ip_range).filter_map(|text| {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            tracing::warn!(
                cidr = text,
                "--service-cluster-ip-range is not a CIDR, ignored"
            );
        }
        parsed
    });
    Ok(Some(NodeCidrs {
        clusters: clusters.collect(),
        services: services.collect(),
    }))
}
