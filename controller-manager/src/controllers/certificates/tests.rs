//! Requests of rcgen's making, and what is made of them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use rcgen::{BasicConstraints, CertificateParams, DnType, DnValue, IsCa, KeyPair, SanType};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::Authority;
use super::request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, Request};
use super::{Approval, approvals};

fn request(name: &str, organization: &str, sans: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, organization);
    params
        .distinguished_name
        .push(DnType::CommonName, DnValue::from(name));
    for san in sans {
        params.subject_alt_names.push(match san.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*san).try_into().unwrap()),
        });
    }
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn usages(text: &str) -> Vec<String> {
    text.split(", ").map(str::to_owned).collect()
}

#[test]
fn signers_know_their_requests() {
    let node = || request("system:node:n", "system:nodes", &[]);
    for (der, signer, given, want) in [
        (
            node(),
            KUBELET_CLIENT,
            "digital signature, client auth",
            Ok(()),
        ),
        (
            node(),
            KUBELET_CLIENT,
            "key encipherment, digital signature, client auth",
            Ok(()),
        ),
        (
            node(),
            KUBELET_CLIENT,
            "client auth",
            Err("usages did not match [client auth digital signature key encipherment]"),
        ),
        (
            request("system:node:n", "x", &[]),
            KUBELET_CLIENT,
            "client auth",
            Err("subject organization is not system:nodes"),
        ),
        (
            request("n", "system:nodes", &[]),
            KUBELET_CLIENT,
            "digital signature, client auth",
            Err("subject common name does not begin with system:node:"),
        ),
        (
            request("system:node:n", "system:nodes", &["a.b"]),
            KUBELET_CLIENT,
            "digital signature, client auth",
            Err("DNS subjectAltNames are not allowed"),
        ),
        (
            request("system:node:n", "system:nodes", &["10.0.0.1"]),
            KUBELET_SERVING,
            "digital signature, server auth",
            Ok(()),
        ),
        (
            node(),
            KUBELET_SERVING,
            "digital signature, server auth",
            Err("DNS or IP subjectAltName is required"),
        ),
        (node(), CLIENT, "client auth", Ok(())),
        (
            node(),
            CLIENT,
            "server auth",
            Err("invalid usage for client certificate: server auth"),
        ),
        (
            node(),
            CLIENT,
            "digital signature",
            Err("missing required usage for client certificate: client auth"),
        ),
        (node(), LEGACY_UNKNOWN, "code signing", Ok(())),
    ] {
        let parsed = Request::parse(&der).unwrap();
        parsed.check_signature().unwrap();
        let got = parsed.check(signer, &usages(given));
        assert_eq!(
            got.as_ref().copied().map_err(String::as_str),
            want,
            "{signer} {given}"
        );
    }
}

#[test]
fn nodes_are_approved_by_what_they_may_do() {
    let der = request("system:node:n", "system:nodes", &[]);
    let asked = |user: &str, signer: &str| {
        let spec = CertificateSigningRequestSpec {
            username: Some(user.to_owned()),
            signer_name: signer.to_owned(),
            usages: Some(usages("digital signature, client auth")),
            ..CertificateSigningRequestSpec::default()
        };
        let approvals = approvals(&spec, &Request::parse(&der).unwrap());
        approvals
            .iter()
            .map(|a: &Approval| a.subresource)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        asked("system:node:n", KUBELET_CLIENT),
        ["selfnodeclient", "nodeclient"]
    );
    assert_eq!(asked("bootstrap", KUBELET_CLIENT), ["nodeclient"]);
    assert!(asked("bootstrap", CLIENT).is_empty());
}

/// A CA as files, with its key in PEM as given.
fn authority(dir: &std::path::Path) -> (Authority, Vec<u8>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "ca");
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (crt, k) = (dir.join("ca.crt"), dir.join("ca.key"));
    std::fs::write(&crt, certificate.pem()).unwrap();
    std::fs::write(&k, key.serialize_pem()).unwrap();
    let authority = Authority::read(crt.to_str().unwrap(), k.to_str().unwrap()).unwrap();
    (authority, certificate.der().to_vec())
}

#[test]
fn certificates_are_of_the_authority() {
    let dir = std::env::temp_dir().join(format!("authority-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (authority, ca) = authority(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
    let der = request("system:node:n", "system:nodes", &["a.b", "10.0.0.1"]);
    let parsed = Request::parse(&der).unwrap();
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let given = usages("server auth, digital signature, client auth");
    let hours = SignedDuration::from_hours;
    for (duration, end) in [
        (hours(24), "2026-01-01T23:55:00Z"),
        (hours(1), "2026-01-01T01:00:00Z"),
    ] {
        let made = authority
            .sign(&parsed, &given, duration, [0x80; 16], now)
            .unwrap();
        let (rest, certificate) = X509Certificate::from_der(&made).unwrap();
        assert!(rest.is_empty());
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(
            certificate.subject().to_string(),
            "O=system:nodes, CN=system:node:n"
        );
        assert_eq!(certificate.issuer(), ca.subject());
        assert_eq!(certificate.public_key().raw, parsed.public_key());
        let validity = certificate.validity();
        let at = |t: &str| t.parse::<Timestamp>().unwrap().as_second();
        assert_eq!(validity.not_before.timestamp(), at("2025-12-31T23:55:00Z"));
        assert_eq!(validity.not_after.timestamp(), at(end));
        let key_usage = certificate.key_usage().unwrap().unwrap();
        assert!(
            key_usage.critical
                && key_usage.value.digital_signature()
                && !key_usage.value.key_encipherment()
        );
        let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && purposes.client_auth && !purposes.any);
        assert!(!certificate.is_ca());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
    }
    assert!(
        authority
            .sign(&parsed, &usages("x"), hours(1), [1; 16], now)
            .is_err()
    );
    let late: Timestamp = "4999-01-01T00:00:00Z".parse().unwrap();
    assert!(
        authority
            .sign(&parsed, &given, hours(1), [1; 16], late)
            .is_err()
    );
}
