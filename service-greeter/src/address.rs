use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use log::{debug, warn};
use tokio::net::lookup_host;
use tokio::time::sleep;

use crate::Config;

/// Where others reach an instance, as said on the command line: `host:port`, where the host may be
/// a name, and port 0 stands for the port it listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    host: String,
    port: u16,
}

impl FromStr for Advertise {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str =
            "expected HOST:PORT, such as 10.0.0.5:8080, [::1]:8080 or greeter-1:0";
        if let Ok(address) = text.parse::<SocketAddr>() {
            let (host, port) = (address.ip().to_string(), address.port());
            let sound = can_be_reached(address.ip());
            return sound
                .then_some(Self { host, port })
                .ok_or("nobody can connect to this address");
        }
        let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
        let port = port.parse().map_err(|_| ALLOWED)?;
        let letters = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        // A name's last label is not a number (RFC 1123, section 2.1): that is a mistyped address.
        let number = host
            .rsplit('.')
            .next()
            .is_none_or(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if !letters || number {
            return Err(ALLOWED);
        }
        Ok(Self {
            host: host.into(),
            port,
        })
    }
}

/// Where others reach the instance that listens at `listening`. Does not give up: when containers
/// start together, their names cannot be looked up at first.
pub(crate) async fn advertised(config: &Config, listening: SocketAddr) -> SocketAddr {
    let (mut delay, longest) = (Duration::from_millis(100), Duration::from_secs(2));
    let mut warned = false;
    loop {
        match find(config, listening).await {
            Ok(address) => return address,
            Err(error) if warned => debug!(error:%; "own address still not known"),
            Err(error) => warn!(error:%; "own address not known, serving unregistered until it is"),
        }
        warned = true;
        sleep(delay).await;
        delay = longest.min(delay * 2);
    }
}

async fn find(config: &Config, listening: SocketAddr) -> io::Result<SocketAddr> {
    let port = listening.port();
    let address = match &config.advertise {
        Some(advertise) => advertise.look_up(port).await?,
        None if !listening.ip().is_unspecified() => listening,
        None => SocketAddr::new(towards(config.registry.endpoints(), listening).await?, port),
    };
    Ok(address)
}

impl Advertise {
    async fn look_up(&self, default_port: u16) -> io::Result<SocketAddr> {
        let port = if self.port == 0 {
            default_port
        } else {
            self.port
        };
        let mut found = lookup_host((self.host.as_str(), port))
            .await
            .map_err(|e| about(&self.host, &e))?;
        let usable = found.find(|address| can_be_reached(address.ip()));
        usable.ok_or_else(|| io::Error::other(format!("{} has no usable address", self.host)))
    }
}

/// The local address that packets to the first reachable of these servers carry.
async fn towards(servers: &[String], listening: SocketAddr) -> io::Result<IpAddr> {
    let Some(first) = servers.first() else {
        return Ok(loopback(listening));
    };
    let mut failed = io::Error::other(format!("no way to {first}"));
    for server in servers {
        match lookup_host(server).await {
            Ok(mut found) => match found.find_map(|address| local_address(address, listening)) {
                Some(address) => return Ok(address),
                None => failed = io::Error::other(format!("no way to {server}")),
            },
            Err(error) => failed = about(server, &error),
        }
    }
    Err(failed)
}

/// Connecting a UDP socket sends nothing: it asks the kernel for the route.
fn local_address(server: SocketAddr, listening: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        // Who listens on 0.0.0.0 cannot be reached by IPv6.
        SocketAddr::V6(_) if listening.is_ipv4() => return None,
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(server).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn loopback(listening: SocketAddr) -> IpAddr {
    match listening {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn can_be_reached(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

fn about(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}
