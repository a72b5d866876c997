//! The addresses of a connection's peer and of the client that it forwards for.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::str;
use std::sync::Arc;

use actix_web::http::header::{HeaderMap, HeaderValue, X_FORWARDED_FOR};
use discovery::Network;

/// The other end of a connection, computed once for all of its requests.
pub(crate) struct Peer {
    pub(crate) address: Address,
    /// The networks of trusted proxies, if the peer is one of these.
    trusted: Option<Arc<[Network]>>,
}

/// An address in the forms that a request needs.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// IPv4 also where it was received as IPv4 in IPv6.
    pub(crate) ip: IpAddr,
    /// The same as text.
    pub(crate) text: HeaderValue,
    /// The key of `ip-hash`.
    pub(crate) key: [u8; 16],
}

impl Peer {
    pub(crate) fn new(ip: IpAddr, trusted: &Arc<[Network]>) -> Self {
        let is_trusted = trusted.iter().any(|network| network.contains(ip));
        Self {
            address: Address::new(ip),
            trusted: is_trusted.then(|| trusted.clone()),
        }
    }

    /// Returns the address of the peer.
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip
    }

    /// Returns whether the peer is a proxy that may describe the client.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted.is_some()
    }

    /// Returns the client of a request: the peer, or the client that a trusted peer names.
    pub(crate) fn client(&self, received: &HeaderMap) -> Cow<'_, Address> {
        let Some(trusted) = &self.trusted else {
            return Cow::Borrowed(&self.address);
        };
        let ip = client_address(received, self.address.ip, trusted);
        if ip == self.address.ip {
            Cow::Borrowed(&self.address)
        } else {
            Cow::Owned(Address::new(ip))
        }
    }
}

impl Address {
    fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let text = HeaderValue::try_from(ip.to_string());
        let key = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Self {
            ip,
            text: text.expect("an address is ASCII"),
            key,
        }
    }
}

/// Returns the address of the client that a trusted peer forwards for: the last one in `X-Forwarded-For` that
/// is not trusted itself. The search ends at an element that is not an address (`unknown`, `_hidden`): what is
/// in front of it is not known, so the client is the proxy behind it.
pub(crate) fn client_address(received: &HeaderMap, peer: IpAddr, trusted: &[Network]) -> IpAddr {
    let lines: Vec<_> = received.get_all(X_FORWARDED_FOR).collect();
    let lines = lines.iter().rev();
    let elements = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut client = peer;
    for element in elements.map(<[u8]>::trim_ascii) {
        if element.is_empty() {
            continue; // empty elements are valid in lists
        }
        let Some(address) = address(element) else {
            break;
        };
        client = address;
        if !trusted.iter().any(|network| network.contains(address)) {
            break;
        }
    }
    client
}

/// Parses an address, which may have brackets, quotes or a port.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element).ok()?;
    let unquoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let text = unquoted.unwrap_or(text);
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let ip = match bare {
        Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    };
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    ip.or_else(with_port).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_address_that_is_not_trusted() {
        let client = |lines: &[&str]| {
            let mut received = HeaderMap::new();
            for line in lines {
                received.append(X_FORWARDED_FOR, line.parse().unwrap());
            }
            let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
            let peer = "10.0.0.1".parse().unwrap();
            client_address(&received, peer, &networks).to_string()
        };
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&["198.51.100.1"], "198.51.100.1"),
            (&["198.51.100.1, 198.51.100.2"], "198.51.100.2"),
            (&["198.51.100.1", "10.0.0.2, ,10.0.0.3"], "198.51.100.1"),
            (&["198.51.100.1, \t10.0.0.2 "], "198.51.100.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["198.51.100.1:4711"], "198.51.100.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1, fd00::1"], "2001:db8::1"),
            (&["\"[2001:db8::1]:4711\""], "2001:db8::1"),
            (&["::ffff:198.51.100.1"], "198.51.100.1"),
            (&["198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
            (&["198.51.100.1, unknown"], "10.0.0.1"),
            (&["198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            (&["198.51.100.1, [10.0.0.2]"], "10.0.0.1"),
            (&["198.51.100.1, 10.0.0.2x, 10.0.0.3"], "10.0.0.3"),
            (&["", ","], "10.0.0.1"),
        ] {
            assert_eq!(client(lines), expected, "{lines:?}");
        }
    }
}
