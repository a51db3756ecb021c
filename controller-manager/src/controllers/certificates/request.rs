//! Certificate requests (PKCS #10), and which of them our signers know. Pure.

use std::collections::BTreeSet;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::pki::der;

pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// The request in a PEM block, as DER.
pub fn decode(pem: &[u8]) -> Result<Vec<u8>, String> {
    let blocks = x509_parser::pem::Pem::iter_from_buffer(pem);
    let first = blocks.filter_map(Result::ok).next();
    match first {
        Some(block) if block.label == "CERTIFICATE REQUEST" => Ok(block.contents),
        _ => Err("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    }
}

/// A request.
pub struct Request<'a>(X509CertificationRequest<'a>);

/// The names that a request asks for beside its subject's.
#[derive(Default)]
struct Names<'a> {
    dns: Vec<&'a str>,
    mail: Vec<&'a str>,
    addresses: Vec<&'a [u8]>,
    uris: Vec<&'a str>,
}

impl<'a> Request<'a> {
    pub fn parse(der: &'a [u8]) -> Result<Self, String> {
        match X509CertificationRequest::from_der(der) {
            Ok((_, request)) => Ok(Self(request)),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Who asks has the key.
    pub fn check_signature(&self) -> Result<(), String> {
        let checked = self.0.verify_signature();
        checked.map_err(|e| format!("unable to verify certificate request signature: {e}"))
    }

    /// As in the request, byte for byte.
    pub fn subject(&self) -> &[u8] {
        self.0.certification_request_info.subject.as_raw()
    }

    pub fn subject_is_empty(&self) -> bool {
        self.0
            .certification_request_info
            .subject
            .iter()
            .next()
            .is_none()
    }

    pub fn public_key(&self) -> &[u8] {
        self.0.certification_request_info.subject_pki.raw
    }

    pub fn common_name(&self) -> &str {
        let names = self.0.certification_request_info.subject.iter_common_name();
        // Of several the last counts.
        names
            .last()
            .and_then(|n| n.as_str().ok())
            .unwrap_or_default()
    }

    fn organizations(&self) -> Vec<&str> {
        let names = self
            .0
            .certification_request_info
            .subject
            .iter_organization();
        names.filter_map(|n| n.as_str().ok()).collect()
    }

    fn names(&self) -> Names<'_> {
        let mut names = Names::default();
        for extension in self.0.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(given) = extension else {
                continue;
            };
            for name in &given.general_names {
                match name {
                    GeneralName::DNSName(name) => names.dns.push(name),
                    GeneralName::RFC822Name(name) => names.mail.push(name),
                    GeneralName::IPAddress(address) => names.addresses.push(address),
                    GeneralName::URI(uri) => names.uris.push(uri),
                    _ => {}
                }
            }
        }
        names
    }

    /// As a certificate writes them.
    pub fn alternative_names(&self) -> Vec<u8> {
        let names = self.names();
        let texts = |number, texts: Vec<&str>| {
            let name = move |t: &str| der::element(der::CONTEXT | number, &[t.as_bytes()]);
            texts.into_iter().flat_map(name).collect::<Vec<u8>>()
        };
        let addresses = names.addresses.iter();
        let addresses = addresses.flat_map(|a| der::element(der::CONTEXT | 7, &[a]));
        let mut all = texts(2, names.dns);
        all.extend(texts(1, names.mail));
        all.extend(addresses);
        all.extend(texts(6, names.uris));
        all
    }

    fn check_kubelet(&self) -> Result<(), String> {
        if self.organizations() != ["system:nodes"] {
            return Err("subject organization is not system:nodes".to_owned());
        }
        Ok(())
    }

    fn check_node_name(&self) -> Result<(), String> {
        if !self.common_name().starts_with("system:node:") {
            return Err("subject common name does not begin with system:node:".to_owned());
        }
        Ok(())
    }

    /// Whether it is a kubelet's, to serve with.
    fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.check_kubelet()?;
        let names = self.names();
        if names.dns.is_empty() && names.addresses.is_empty() {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        if !names.mail.is_empty() {
            return Err("Email subjectAltNames are not allowed".to_owned());
        }
        if !names.uris.is_empty() {
            return Err("URI subjectAltNames are not allowed".to_owned());
        }
        check_usages(usages, "server auth")?;
        self.check_node_name()
    }

    /// Whether it is a kubelet's, to be known to the API server by.
    pub fn check_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.check_kubelet()?;
        let names = self.names();
        for (given, what) in [
            (!names.dns.is_empty(), "DNS"),
            (!names.mail.is_empty(), "Email"),
            (!names.addresses.is_empty(), "IP"),
            (!names.uris.is_empty(), "URI"),
        ] {
            if given {
                return Err(format!("{what} subjectAltNames are not allowed"));
            }
        }
        check_usages(usages, "client auth")?;
        self.check_node_name()
    }

    /// Whether a signer may sign it.
    pub fn check(&self, signer: &str, usages: &[String]) -> Result<(), String> {
        match signer {
            KUBELET_SERVING => self.check_kubelet_serving(usages),
            KUBELET_CLIENT => self.check_kubelet_client(usages),
            CLIENT => check_client_usages(usages),
            _ => Ok(()),
        }
    }
}

/// Signing, and this; encipherment of keys is for RSA only, and may be left out.
fn check_usages(usages: &[String], main: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let mut wanted: BTreeSet<&str> = ["digital signature", main].into();
    if given == wanted {
        return Ok(());
    }
    wanted.insert("key encipherment");
    if given == wanted {
        return Ok(());
    }
    let mut sorted: Vec<_> = wanted.into_iter().collect();
    sorted.sort_unstable();
    Err(format!("usages did not match [{}]", sorted.join(" ")))
}

fn check_client_usages(usages: &[String]) -> Result<(), String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|u| !known.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|u| u == "client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    Ok(())
}
