//! Addresses and networks that are not written as they should be. Old fields take what Go's
//! `net.ParseIP` once took; not every program that reads them does (KEP-4858).

use std::net::IpAddr;

use meta::field::Path;
use meta::gofmt::quote;
use meta::validation::ip::{masked, parse_cidr_sloppy, parse_ip_sloppy};

use super::Warnings;

/// How an address should have been written.
enum Form {
    Right,
    /// Not everybody reads it as the same address.
    NonStandard,
    /// RFC 5952 has it so.
    Canonical(IpAddr),
}

fn form(written: &str) -> Form {
    match written.parse() {
        Ok(IpAddr::V4(_)) => Form::Right,
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => Form::NonStandard,
        Ok(address) if address.to_string() == written => Form::Right,
        Ok(address) => Form::Canonical(address),
        Err(_) => Form::NonStandard,
    }
}

/// Of an address; what is none at all is nothing to warn of.
pub(super) fn ip(warnings: &mut Warnings, path: &Path, written: &str) {
    let Some(address) = parse_ip_sloppy(written) else {
        return;
    };
    let said = quote(written);
    match form(written) {
        Form::Right => {}
        Form::NonStandard => warnings.add(
            path,
            format_args!("non-standard IP address {said} is invalid: use \"{address}\""),
        ),
        Form::Canonical(address) => warnings.add(
            path,
            format_args!(
                "IPv6 address {said} should be in RFC 5952 canonical format (\"{address}\")"
            ),
        ),
    }
}

/// Of a network; what is none at all is nothing to warn of.
pub(super) fn cidr(warnings: &mut Warnings, path: &Path, written: &str) {
    let (Some((address, bits)), Some((host, length))) =
        (parse_cidr_sloppy(written), written.split_once('/'))
    else {
        return;
    };
    let said = quote(written);
    let network = masked(address, bits);
    let ambiguous = network != address;
    if ambiguous {
        // Upstream counts the bits of the address as written, mapped ones too.
        let all = if host.contains(':') { 128 } else { 32 };
        warnings.add(
            path,
            format_args!(
                "CIDR value {said} is ambiguous in this context (should be \"{network}/{bits}\" or \"{address}/{all}\"?)"
            ),
        );
    }
    let padded = length.len() > 1 && length.starts_with('0');
    match form(host) {
        _ if padded => non_standard(warnings, path, &said, network, bits),
        Form::NonStandard => non_standard(warnings, path, &said, network, bits),
        Form::Canonical(address) if !ambiguous => warnings.add(
            path,
            format_args!(
                "IPv6 CIDR value {said} should be in RFC 5952 canonical format (\"{address}/{bits}\")"
            ),
        ),
        Form::Canonical(_) | Form::Right => {}
    }
}

fn non_standard(warnings: &mut Warnings, path: &Path, said: &str, network: IpAddr, bits: u8) {
    warnings.add(
        path,
        format_args!("non-standard CIDR value {said} is invalid: use \"{network}/{bits}\""),
    );
}
