#[cfg(feature = "tls")]
use std::path::Path;
use std::time::Duration;

use etcd_client::ConnectOptions;
#[cfg(feature = "tls")]
use etcd_client::{Certificate, Identity, TlsOptions};

use crate::Error;
use crate::registry::access::Access;
#[cfg(feature = "tls")]
use crate::registry::access::Tls;
#[cfg(feature = "tls")]
use crate::registry::file::read;

/// How to connect. Files are small and local, and read anew for each connection, so that a renewed
/// certificate or password counts from then on.
pub(super) fn options(access: &Access, limit: Duration) -> Result<ConnectOptions, Error> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(limit)
        // Pings less than 5 s apart make etcd close the connection.
        .with_keep_alive(Duration::from_secs(6), Duration::from_secs(3))
        .with_keep_alive_while_idle(true);
    #[cfg(feature = "tls")]
    if let Some(tls) = &access.tls {
        options = options.with_tls(tls_options(tls)?);
    }
    if let Some(user) = &access.user {
        options = options.with_user(&user.name, user.password.read()?);
    }
    Ok(options)
}

#[cfg(feature = "tls")]
fn tls_options(tls: &Tls) -> Result<TlsOptions, Error> {
    let mut options = match &tls.ca {
        Some(ca) => TlsOptions::new().ca_certificate(root(ca)?),
        None => TlsOptions::new().with_native_roots(),
    };
    if let Some((cert, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name);
    }
    Ok(options)
}

/// A file without a certificate would only make all servers strangers.
#[cfg(feature = "tls")]
fn root(file: &Path) -> Result<Certificate, Error> {
    let pem = read(file)?;
    match pem.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(Certificate::from_pem(pem)),
        false => Err(Error::registry(format!(
            "no certificate in {}",
            file.display()
        ))),
    }
}
