//! IP addresses and CIDRs, as the API accepts them.
//!
//! Old fields accept what Go's `net.ParseIP` once did (leading zeros in IPv4); new fields want
//! the canonical form. KEP-4858.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field::{ErrorList, FieldError, Path};
use crate::gofmt::Quoted;

/// Reads an address; IPv4 octets may have leading zeros and are decimal nevertheless. An
/// IPv4-mapped IPv6 address gives the IPv4 address, as Go's `net.IP` does.
pub fn parse_ip_sloppy(s: &str) -> Option<IpAddr> {
    if s.contains(':') {
        let v6: Ipv6Addr = s.parse().ok()?;
        return Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4));
    }
    let mut octets = [0u8; 4];
    let mut parts = s.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part
            .trim_start_matches('0')
            .parse()
            .or_else(|e| {
                if part.bytes().all(|b| b == b'0') {
                    Ok(0)
                } else {
                    Err(e)
                }
            })
            .ok()?;
    }
    parts
        .next()
        .is_none()
        .then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Reads `address/bits`, returning the address as written and the prefix length.
pub fn parse_cidr_sloppy(s: &str) -> Option<(IpAddr, u8)> {
    let (addr, bits) = s.split_once('/')?;
    let ip = parse_ip_sloppy(addr)?;
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits: u32 = bits.parse().ok()?;
    let max = if addr.contains(':') { 128 } else { 32 };
    if bits > max {
        return None;
    }
    let mapped = addr.contains(':') && ip.is_ipv4();
    let bits = if mapped { bits.checked_sub(96)? } else { bits };
    Some((ip, bits as u8))
}

/// The network that `ip` with this prefix length is in.
pub fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(bits.min(32)))
                .unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(bits.min(128)))
                .unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

fn is_mapped(s: &str) -> bool {
    s.parse::<Ipv6Addr>()
        .is_ok_and(|ip| ip.to_ipv4_mapped().is_some())
}

fn check_ip(path: &Path, s: &str, strict: bool) -> Result<IpAddr, FieldError> {
    let ip = parse_ip_sloppy(s).ok_or_else(|| {
        FieldError::invalid(
            path,
            s,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        )
    })?;
    if strict && s.parse::<IpAddr>().is_err() {
        return Err(FieldError::invalid(path, s, "must not have leading 0s"));
    }
    if strict && is_mapped(s) {
        return Err(FieldError::invalid(
            path,
            s,
            "must not be an IPv4-mapped IPv6 address",
        ));
    }
    Ok(ip)
}

/// An address in canonical form: for new fields.
pub fn valid_ip(path: &Path, s: &str) -> ErrorList {
    match check_ip(path, s, true) {
        Err(e) => e.into(),
        Ok(ip) if ip.to_string() != s => not_canonical(path, s, &ip.to_string()),
        Ok(_) => ErrorList::new(),
    }
}

/// An address in a field that predates strict checks; what the old object had stays valid.
pub fn valid_ip_for_legacy_field(
    path: &Path,
    s: &str,
    strict: bool,
    valid_old: &[&str],
) -> ErrorList {
    if valid_old.contains(&s) {
        return ErrorList::new();
    }
    check_ip(path, s, strict).map_or_else(ErrorList::from, |_| ErrorList::new())
}

fn check_cidr(path: &Path, s: &str, strict: bool) -> Result<(IpAddr, u8), FieldError> {
    let (ip, bits) = parse_cidr_sloppy(s).ok_or_else(|| {
        FieldError::invalid(
            path,
            s,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        )
    })?;
    if strict {
        let (addr, length) = s.split_once('/').unwrap_or((s, ""));
        let leading_zero = length.len() > 1 && length.starts_with('0');
        let detail = if addr.parse::<IpAddr>().is_err() || leading_zero {
            Some("must not have leading 0s in IP or prefix length")
        } else if is_mapped(addr) {
            Some("must not have an IPv4-mapped IPv6 address")
        } else if masked(ip, bits) != ip {
            Some("must not have bits set beyond the prefix length")
        } else {
            None
        };
        if let Some(detail) = detail {
            return Err(FieldError::invalid(path, s, detail));
        }
    }
    Ok((masked(ip, bits), bits))
}

/// A network in canonical form: for new fields.
pub fn valid_cidr(path: &Path, s: &str) -> ErrorList {
    match check_cidr(path, s, true) {
        Err(e) => e.into(),
        Ok((ip, bits)) if format!("{ip}/{bits}") != s => {
            not_canonical(path, s, &format!("{ip}/{bits}"))
        }
        Ok(_) => ErrorList::new(),
    }
}

/// A network in a field that predates strict checks; what the old object had stays valid.
pub fn valid_cidr_for_legacy_field(
    path: &Path,
    s: &str,
    strict: bool,
    valid_old: &[&str],
) -> ErrorList {
    if valid_old.contains(&s) {
        return ErrorList::new();
    }
    check_cidr(path, s, strict).map_or_else(ErrorList::from, |_| ErrorList::new())
}

fn not_canonical(path: &Path, s: &str, canonical: &str) -> ErrorList {
    let detail = format!("must be in canonical form ({})", Quoted(canonical));
    FieldError::invalid(path, s, detail).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let p = Path::new("ip");
        let detail = |s: &str| valid_ip(&p, s).0.first().map(|e| e.detail.clone());
        assert_eq!(detail("10.0.0.1"), None);
        assert_eq!(detail("2001:db8::1"), None);
        assert_eq!(detail("010.0.0.1").unwrap(), "must not have leading 0s");
        assert_eq!(
            detail("::ffff:1.2.3.4").unwrap(),
            "must not be an IPv4-mapped IPv6 address"
        );
        assert_eq!(
            detail("2001:DB8:0::1").unwrap(),
            "must be in canonical form (\"2001:db8::1\")"
        );
        for bad in [
            "",
            "1.2.3",
            "1.2.3.256",
            "1.2.3.4.5",
            "a",
            "1.2.3.-4",
            "1.2.3.+4",
        ] {
            assert!(
                detail(bad)
                    .unwrap()
                    .starts_with("must be a valid IP address"),
                "{bad}"
            );
        }
        assert!(valid_ip_for_legacy_field(&p, "010.0.0.1", false, &[]).is_empty());
        assert!(valid_ip_for_legacy_field(&p, "junk", true, &["junk"]).is_empty());
        assert_eq!(
            parse_ip_sloppy("000.00.0.1"),
            Some("0.0.0.1".parse().unwrap())
        );
    }

    #[test]
    fn networks() {
        let p = Path::new("cidr");
        let detail = |s: &str| valid_cidr(&p, s).0.first().map(|e| e.detail.clone());
        assert_eq!(detail("10.0.0.0/8"), None);
        assert_eq!(detail("::/0"), None);
        assert_eq!(
            detail("10.0.0.1/8").unwrap(),
            "must not have bits set beyond the prefix length"
        );
        assert_eq!(
            detail("10.0.0.0/08").unwrap(),
            "must not have leading 0s in IP or prefix length"
        );
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "/8", "::/129"] {
            assert!(
                detail(bad)
                    .unwrap()
                    .starts_with("must be a valid CIDR value"),
                "{bad}"
            );
        }
        assert_eq!(
            masked("10.1.2.3".parse().unwrap(), 0),
            "0.0.0.0".parse::<IpAddr>().unwrap()
        );
    }
}
