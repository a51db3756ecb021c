//! The certificates and keys of a stand, made when it starts. Every server of a stand
//! uses the same ones.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A directory of PEM files.
#[derive(Debug, Clone)]
pub struct Pki {
    directory: PathBuf,
}

impl Pki {
    /// Makes all of them in a directory.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn make(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let pki = Self {
            directory: directory.to_owned(),
        };
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "stand");
        pki.write("ca.crt", &ca.self_signed(&ca_key)?.pem())?;
        pki.write("ca.key", &ca_key.serialize_pem())?;
        let issuer = Issuer::new(ca, ca_key);
        for (name, common_name, organization, usage) in [
            (
                "apiserver",
                "kube-apiserver",
                "stand",
                ExtendedKeyUsagePurpose::ServerAuth,
            ),
            (
                "admin",
                "admin",
                "system:masters",
                ExtendedKeyUsagePurpose::ClientAuth,
            ),
            (
                "kubelet-client",
                "apiserver-kubelet-client",
                "system:masters",
                ExtendedKeyUsagePurpose::ClientAuth,
            ),
        ] {
            let key = KeyPair::generate()?;
            let names = ["127.0.0.1", "localhost", "kubernetes"].map(str::to_owned);
            let mut params = CertificateParams::new(names)?;
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![usage];
            pki.write(
                &format!("{name}.crt"),
                &params.signed_by(&key, &issuer)?.pem(),
            )?;
            pki.write(&format!("{name}.key"), &key.serialize_pem())?;
        }
        let accounts = KeyPair::generate()?;
        pki.write("sa.key", &accounts.serialize_pem())?;
        pki.write("sa.pub", &accounts.public_key_pem())?;
        Ok(pki)
    }

    /// A directory that has them.
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    fn write(&self, file: &str, pem: &str) -> Result<()> {
        Ok(std::fs::write(self.path(file), pem)?)
    }

    /// The path of a file.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }
}
