use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::header::{HeaderMap, HeaderValue};
use discovery::Network;

use crate::proxy::client_address;

/// The other end of a connection, worked out once for all of its requests.
pub(crate) struct Origin {
    pub(crate) peer: Address,
    /// The networks of trusted proxies, if the peer is one of these.
    trusted: Option<Arc<[Network]>>,
}

/// An address in the forms that a request needs.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// IPv4 also where it came as IPv4 in IPv6.
    pub(crate) ip: IpAddr,
    /// The same as text.
    pub(crate) name: HeaderValue,
    /// The key of `ip-hash`.
    pub(crate) key: [u8; 16],
}

impl Origin {
    pub(crate) fn new(peer: IpAddr, trusted: &Arc<[Network]>) -> Self {
        let is_trusted = trusted.iter().any(|network| network.contains(peer));
        Self {
            peer: Address::new(peer),
            trusted: is_trusted.then(|| trusted.clone()),
        }
    }

    /// Returns the address of the peer.
    pub(crate) fn peer_ip(&self) -> IpAddr {
        self.peer.ip
    }

    /// Whether the peer is a proxy whose description of the client counts.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted.is_some()
    }

    /// The client of a request: the peer, or the client that a trusted peer names.
    pub(crate) fn client(&self, received: &HeaderMap) -> Cow<'_, Address> {
        let Some(trusted) = &self.trusted else {
            return Cow::Borrowed(&self.peer);
        };
        let ip = client_address(received, self.peer.ip, trusted);
        if ip == self.peer.ip {
            Cow::Borrowed(&self.peer)
        } else {
            Cow::Owned(Address::new(ip))
        }
    }
}

impl Address {
    fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let name = HeaderValue::try_from(ip.to_string());
        let key = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Self {
            ip,
            name: name.expect("an address is plain ASCII"),
            key,
        }
    }
}
