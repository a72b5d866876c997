//! Certificates for TLS between a client and an etcd.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

use crate::Directory;

/// An authority that issues certificates, as files in a directory of its own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: Directory,
}

impl Authority {
    /// Creates one with a new key.
    pub fn new() -> Self {
        let name = format!(
            "discovery-ca-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        );
        let directory = Directory::new().expect("a directory for certificates");
        let mut params = CertificateParams::default();
        // A unique name, so that no client takes one authority for another.
        params.distinguished_name.push(DnType::CommonName, &*name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a root");
        let authority = Self { issuer, directory };
        authority.write("ca.pem", &authority.pem());
        authority
    }

    /// Returns its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Returns the path of its own certificate.
    pub fn ca(&self) -> String {
        self.file("ca.pem")
    }

    /// Issues a certificate for a host or a user. Returns the paths of the certificate and its key.
    pub fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (
            self.write(&format!("{name}.pem"), &certificate.pem()),
            self.write(&format!("{name}.key"), &key.serialize_pem()),
        )
    }

    /// Writes a file next to the certificates, and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.directory.file(name), text).expect("a file can be written");
        self.file(name)
    }

    fn file(&self, name: &str) -> String {
        self.directory.file(name).display().to_string()
    }
}
