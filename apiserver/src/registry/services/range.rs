//! Which number of a range to try next: a small part at the beginning is left to those who
//! choose for themselves (KEP-3070, KEP-3668).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// How much of a range of `size` is left to explicit choices: `size / step`, within bounds.
fn reserved(size: u64, least: u64, most: u64, step: u64) -> u64 {
    if size <= least {
        return 0;
    }
    (size / step).clamp(least, most)
}

/// The offsets of a range in the order in which they are to be tried: the greater part from
/// a random place on, then the reserved part.
pub fn candidates(size: u64, reserved: u64, random: u64) -> impl Iterator<Item = u64> {
    let upper = size - reserved;
    let from = if upper == 0 { 0 } else { random % upper };
    (0..upper)
        .map(move |i| reserved + (from + i) % upper)
        .chain(0..reserved)
}

/// Node ports: 16 to 128 at the beginning of the range.
pub fn reserved_ports(size: u64) -> u64 {
    reserved(size, 16, 128, 32)
}

/// Addresses: 16 to 256 at the beginning of the range.
pub fn reserved_addresses(size: u64) -> u64 {
    reserved(size, 16, 256, 16)
}

/// How many addresses of a range can be given away: not the first (the network), and for IPv4
/// not the last (broadcast).
pub fn usable(range: &IpNet) -> u64 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let all = if bits >= 63 { u64::MAX >> 1 } else { 1 << bits };
    match range {
        IpNet::V4(_) => all.saturating_sub(2),
        IpNet::V6(_) => all.saturating_sub(1),
    }
}

/// The usable address at an offset.
pub fn address(range: &IpNet, offset: u64) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + offset as u32 + 1).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(offset) + 1).into(),
    }
}

/// Whether a Service may have this address of a range.
pub fn is_usable(range: &IpNet, ip: IpAddr) -> bool {
    range.contains(&ip) && ip != range.network() && (ip.is_ipv6() || ip != range.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_tried_last() {
        let order: Vec<u64> = candidates(6, 2, 3).collect();
        assert_eq!(order, [5, 2, 3, 4, 0, 1]);
        assert_eq!(candidates(0, 0, 7).count(), 0);
        assert_eq!(reserved_ports(2768), 86);
        assert_eq!(reserved_addresses(65534), 256);
        assert_eq!(reserved_addresses(14), 0);
    }

    #[test]
    fn ends_of_a_range_are_not_given_away() {
        let range: IpNet = "10.96.0.0/30".parse().unwrap();
        assert_eq!(usable(&range), 2);
        assert_eq!(address(&range, 0).to_string(), "10.96.0.1");
        assert!(is_usable(&range, "10.96.0.2".parse().unwrap()));
        assert!(!is_usable(&range, "10.96.0.0".parse().unwrap()));
        assert!(!is_usable(&range, "10.96.0.3".parse().unwrap()));
        let six: IpNet = "fd00::/112".parse().unwrap();
        assert_eq!(usable(&six), 65535);
        assert_eq!(address(&six, 1).to_string(), "fd00::2");
    }
}
