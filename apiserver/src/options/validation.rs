//! What flags may say, each by itself and together. All mistakes are told at once.
//!
//! What must not be here: mistakes that only what is built of the flags can tell, as unknown
//! admission plugins.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{AuthenticationOptions, Options};

/// The mistakes of a command line: one as it is, several in brackets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .0.as_slice() { [one] => one.clone(), many => format!("[{}]", many.join(", ")) })]
pub struct Invalid(Vec<String>);

impl Options {
    /// Refuses what upstream refuses, before anything is connected to. It reads certificates, to
    /// compare them.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut mistakes = Vec::new();
        self.authentication.validate(&mut mistakes);
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Invalid(mistakes)),
        }
    }
}

impl AuthenticationOptions {
    fn validate(&self, mistakes: &mut Vec<String>) {
        if let (Some(clients), Some(proxies)) =
            (&self.client_ca_file, &self.requestheader_client_ca_file)
            && self.requestheader_allowed_names.0.is_empty()
            && overlap(clients, proxies)
        {
            mistakes.push("--requestheader-client-ca-file and --client-ca-file contain overlapping certificates; --requestheader-allowed-names must be specified to ensure regular client certificates cannot set authenticating proxy headers for arbitrary users".to_owned());
        }
    }
}

/// Whether two bundles have a certificate in common. One that cannot be read is told where it is
/// used.
fn overlap(one: &Path, other: &Path) -> bool {
    let certificates = |path| -> Option<Vec<CertificateDer<'static>>> {
        let found = CertificateDer::pem_file_iter(path).ok()?;
        found.collect::<Result<_, _>>().ok()
    };
    match (certificates(one), certificates(other)) {
        (Some(one), Some(other)) => one.iter().any(|certificate| other.contains(certificate)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(args: &[&str]) -> Vec<String> {
        let base = ["kube-apiserver"];
        let args = base.iter().chain(args).map(Into::into);
        let options: Options = component::flags::parse("kube-apiserver", args).unwrap();
        options.validate().err().map_or_else(Vec::new, |e| e.0)
    }

    #[test]
    fn authorities_of_clients_may_be_those_of_proxies_only_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = |name: &str, certificates: &[&rcgen::Certificate]| {
            let path = directory.path().join(name);
            let pem: String = certificates.iter().map(|c| c.pem()).collect();
            std::fs::write(&path, pem).unwrap();
            path.display().to_string()
        };
        let made = || rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
        let (a, b) = (made().cert, made().cert);
        let clients = format!("--client-ca-file={}", bundle("a", &[&a]));
        let proxies = |path: &str| format!("--requestheader-client-ca-file={path}");
        let both = proxies(&bundle("both", &[&b, &a]));
        let other = proxies(&bundle("b", &[&b]));
        assert_eq!(mistakes(&[&clients, &other]), [""; 0]);
        let found = mistakes(&[&clients, &both]);
        assert!(found.iter().any(|m| m.contains("overlapping")), "{found:?}");
        let name = "--requestheader-allowed-names=front-proxy-client";
        assert_eq!(mistakes(&[&clients, &both, name]), [""; 0]);
        assert_eq!(mistakes(&[&clients, &proxies("/nonexistent")]), [""; 0]);
    }
}
