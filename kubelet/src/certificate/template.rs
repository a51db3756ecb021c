//! What a certificate is to say, whether one says it, and when it is to be renewed. Pure.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::NodeAddress;
use rcgen::string::PrintableString;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

use super::CertificateError;
use super::key::pem;
use super::pair::Leaf;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub common_name: String,
    pub organization: String,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
}

impl Template {
    /// The node itself, without a word on where it is.
    pub fn node(name: &str) -> Self {
        Self {
            common_name: format!("system:node:{name}"),
            organization: "system:nodes".into(),
            dns_names: Vec::new(),
            ips: Vec::new(),
        }
    }

    /// The node under its addresses; `None` while it has no IP address, or neither that nor a name
    /// where `dns_only` (AllowDNSOnlyNodeCSR).
    pub fn serving(name: &str, addresses: &[NodeAddress], dns_only: bool) -> Option<Self> {
        let (mut dns_names, mut ips) = (Vec::new(), Vec::new());
        for NodeAddress { address, type_ } in addresses {
            if address.is_empty() {
                continue;
            }
            match (type_.as_str(), address.parse::<IpAddr>()) {
                ("Hostname" | "ExternalIP" | "InternalIP", Ok(ip)) => ips.push(ip),
                ("Hostname", Err(_)) | ("ExternalDNS" | "InternalDNS", _) => {
                    dns_names.push(address.clone());
                }
                _ => {}
            }
        }
        dns_names.sort();
        dns_names.dedup();
        ips.sort_by_key(ToString::to_string);
        ips.dedup();
        let known = !ips.is_empty() || (dns_only && !dns_names.is_empty());
        known.then_some(Self {
            dns_names,
            ips,
            ..Self::node(name)
        })
    }

    /// Whether a certificate says all of it. More is as good.
    pub fn is_met_by(&self, leaf: &Leaf) -> bool {
        self.common_name == leaf.common_name
            && leaf.organizations.contains(&self.organization)
            && self.dns_names.iter().all(|n| leaf.dns_names.contains(n))
            && self.ips.iter().all(|ip| leaf.ips.contains(ip))
    }

    /// The request for it, as PEM text.
    ///
    /// # Errors
    /// When a name cannot be one in a certificate.
    pub fn request(&self, key: &KeyPair) -> Result<String, CertificateError> {
        let wrong = |error: rcgen::Error| CertificateError::Request(error.to_string());
        // As Go: printable strings where they will do.
        let value = |text: &str| match PrintableString::try_from(text) {
            Ok(text) => DnValue::PrintableString(text),
            Err(_) => DnValue::Utf8String(text.to_owned()),
        };
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, value(&self.organization));
        subject.push(DnType::CommonName, value(&self.common_name));
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        for name in &self.dns_names {
            let name = name.as_str().try_into().map_err(wrong)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let ips = self.ips.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(ips);
        let request = params.serialize_request(key).map_err(wrong)?;
        Ok(pem("CERTIFICATE REQUEST", request.der()))
    }
}

/// When a certificate is renewed: after 70 to 90 percent of its life. `random` is in 0..1, so that
/// nodes that came at once do not ask at once.
pub fn deadline(leaf: &Leaf, random: f64) -> Timestamp {
    let life = leaf.not_after.duration_since(leaf.not_before);
    let part = SignedDuration::from_secs_f64(life.as_secs_f64() * (0.7 + 0.2 * random));
    leaf.not_before.checked_add(part).unwrap_or(leaf.not_after)
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer as _;

    use super::super::key;
    use super::*;

    fn addresses(of: &[(&str, &str)]) -> Vec<NodeAddress> {
        let address = |(type_, address): &(&str, &str)| NodeAddress {
            type_: (*type_).to_owned(),
            address: (*address).to_owned(),
        };
        of.iter().map(address).collect()
    }

    fn leaf(template: &Template) -> Leaf {
        Leaf {
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::from_second(1000).unwrap(),
            common_name: template.common_name.clone(),
            organizations: vec![template.organization.clone()],
            dns_names: template.dns_names.clone(),
            ips: template.ips.clone(),
        }
    }

    #[test]
    fn addresses_become_names() {
        let all = addresses(&[
            ("InternalIP", "10.0.0.2"),
            ("InternalIP", "10.0.0.10"),
            ("ExternalIP", "nonsense"),
            ("Hostname", "node"),
            ("InternalDNS", "node"),
            ("ExternalDNS", "a.example.com"),
            ("Hostname", ""),
        ]);
        let template = Template::serving("node", &all, false).unwrap();
        assert_eq!(template.dns_names, ["a.example.com", "node"]);
        let ips: Vec<String> = template.ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.0.0.10", "10.0.0.2"]);
        let named = addresses(&[("Hostname", "node")]);
        assert!(Template::serving("node", &named, false).is_none());
        assert!(Template::serving("node", &named, true).is_some());
        assert!(Template::serving("node", &[], true).is_none());
    }

    #[test]
    fn more_than_what_is_asked_is_as_good() {
        let many = addresses(&[("InternalIP", "10.0.0.2"), ("Hostname", "node")]);
        let few = addresses(&[("InternalIP", "10.0.0.2")]);
        let many = Template::serving("node", &many, false).unwrap();
        let few = Template::serving("node", &few, false).unwrap();
        assert!(many.is_met_by(&leaf(&many)) && few.is_met_by(&leaf(&many)));
        assert!(!many.is_met_by(&leaf(&few)));
        assert!(!Template::node("other").is_met_by(&leaf(&many)));
    }

    #[test]
    fn requests_say_what_upstreams_say() {
        let key = key::generate().unwrap();
        let many = addresses(&[("InternalIP", "10.0.0.2"), ("Hostname", "node")]);
        let many = Template::serving("node", &many, false).unwrap();
        let pem = many.request(&key).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        assert_eq!(block.label, "CERTIFICATE REQUEST");
        let (_, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
        request.verify_signature().unwrap();
        let subject = request.certification_request_info.subject.to_string();
        assert_eq!(subject, "O=system:nodes, CN=system:node:node");
        assert_eq!(request.requested_extensions().unwrap().count(), 1);
    }

    #[test]
    fn certificates_are_renewed_late_in_their_life() {
        let leaf = leaf(&Template::node("n"));
        let at = |random| deadline(&leaf, random).as_second();
        assert_eq!([at(0.0), at(0.5), at(1.0)], [700, 800, 900]);
    }
}
