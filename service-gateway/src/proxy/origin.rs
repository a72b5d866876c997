use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderValue;

/// Who is at the other end of a connection, worked out once for all of its requests.
pub(crate) struct Origin {
    /// IPv4 also where it came as IPv4 in IPv6.
    pub(super) ip: IpAddr,
    /// The same as text.
    pub(super) name: HeaderValue,
    /// What keeps a client with one node.
    pub(super) key: [u8; 16],
}

impl Origin {
    pub(crate) fn new(peer: IpAddr) -> Self {
        let ip = peer.to_canonical();
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

    /// Where this request came from. A connection that was gone when it was accepted has none.
    pub(super) fn of(request: &HttpRequest) -> Option<&Self> {
        request.conn_data()
    }
}
