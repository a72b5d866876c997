//! Connect options for etcd: keep-alive, TLS and the user, from a parsed URL.
//!
//! Without keep-alive ([gRPC guide](https://grpc.io/docs/guides/keepalive/)) a frozen or half-open etcd
//! would block a stream without end. Secrets are read from their files for each connection.

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

/// Returns the options of a new connection. Files are small and local, and read for each connection: a
/// renewed certificate or password applies to the next one.
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

/// Reads a root certificate. A file without one is an error: with it, no server would be trusted.
#[cfg(feature = "tls")]
fn root(file: &Path) -> Result<Certificate, Error> {
    let pem = read(file)?;
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        Ok(Certificate::from_pem(pem))
    } else {
        let file = file.display();
        Err(Error::registry(format!("no certificate in {file}")))
    }
}
