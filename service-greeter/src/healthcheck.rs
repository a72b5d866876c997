use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use actix_web::rt::time::timeout;
use anyhow::{Context, anyhow, bail, ensure};

/// How long the instance may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks the instance that listens at `listen` for its health. Container images have no curl.
///
/// # Errors
/// If it does not answer 200 within two seconds, or nobody can tell where it listens.
pub async fn healthcheck(listen: SocketAddr) -> anyhow::Result<()> {
    ensure!(
        listen.port() != 0,
        "cannot ask an instance at port 0: set --listen to its real port"
    );
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let request = awc::Client::new().get(format!("http://{address}/health"));
    let response = timeout(LIMIT, request.send())
        .await
        .map_err(|_| anyhow!("no answer from {address} within {LIMIT:?}"))?
        .map_err(|error| anyhow!("{error}")) // awc's errors cannot be sent to other threads
        .with_context(|| format!("no answer from {address}"))?;
    match response.status().as_u16() {
        200 => Ok(()),
        _ => bail!("{address} answers {}", response.status()),
    }
}

/// Who listens on all addresses listens on the loopback address too.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
