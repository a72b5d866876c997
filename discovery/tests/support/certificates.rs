use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// An authority that issues certificates, all in files below a directory that goes with it.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let name = format!(
            "discovery-ca-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        );
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(&directory).expect("a directory for certificates");
        let mut params = CertificateParams::default();
        // A name of its own, so that nobody takes one for another.
        params.distinguished_name.push(DnType::CommonName, &*name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a root");
        let authority = Self { issuer, directory };
        authority.write("ca.pem", &authority.pem());
        authority
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The file with its own certificate.
    pub(crate) fn ca(&self) -> String {
        self.file("ca.pem")
    }

    /// The files of a new certificate and its key, for a host or a user of this name.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
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

    /// Writes a file beside the certificates, and says where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.directory.join(name), text).expect("a file can be written");
        self.file(name)
    }

    fn file(&self, name: &str) -> String {
        Path::new(&self.directory).join(name).display().to_string()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
