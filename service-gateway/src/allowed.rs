//! At which addresses nodes may be. Whoever can write to the registry could make the gateway connect
//! to anything else it can reach, or to itself.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use discovery::Network;

/// Whether there may be a node at an address: in one of the networks, and not at one of our `own`.
pub(crate) fn allowed(
    networks: Vec<Network>,
    own: [SocketAddr; 2],
) -> impl Fn(SocketAddr) -> bool + Send + Sync + 'static {
    move |address| {
        let is_inside = networks
            .iter()
            .any(|network| network.contains(address.ip()));
        is_inside && !own.iter().any(|own| leads_to(*own, address))
    }
}

/// Whether who connects to `address` gets to whoever listens at `own`.
fn leads_to(own: SocketAddr, address: SocketAddr) -> bool {
    let (ours, ip) = (own.ip().to_canonical(), address.ip().to_canonical());
    let same_ip = ours == ip || (ours.is_unspecified() && is_local(ip));
    own.port() == address.port() && same_ip
}

/// Whether the address is one of this machine's: only to those can a socket be bound.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(networks: &str, own: &str, address: &str) -> bool {
        let networks = networks.split(',').map(|network| network.parse().unwrap());
        let own = own.parse().unwrap();
        allowed(networks.collect(), [own, own])(address.parse().unwrap())
    }

    #[test]
    fn nodes_are_in_the_networks_and_nowhere_else() {
        let own = "127.0.0.1:8080";
        assert!(is_allowed("10.0.0.0/8,fd00::/8", own, "10.0.0.5:80"));
        assert!(is_allowed("10.0.0.0/8,fd00::/8", own, "[fd00::1]:80"));
        assert!(!is_allowed("10.0.0.0/8,fd00::/8", own, "8.8.8.8:80"));
    }

    #[test]
    fn the_gateway_is_no_node_of_its_own() {
        let all = "0.0.0.0/0,::/0";
        assert!(!is_allowed(all, "127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(!is_allowed(
            all,
            "127.0.0.1:8080",
            "[::ffff:127.0.0.1]:8080"
        ));
        assert!(!is_allowed(all, "0.0.0.0:8080", "127.0.0.9:8080"));
        assert!(!is_allowed(all, "[::]:8080", "127.0.0.1:8080"));
        assert!(
            is_allowed(all, "127.0.0.1:8080", "127.0.0.9:8080"),
            "another's"
        );
        assert!(is_allowed(all, "0.0.0.0:8080", "127.0.0.1:8081"));
        assert!(
            is_allowed(all, "0.0.0.0:8080", "192.0.2.1:8080"),
            "elsewhere"
        );
    }
}
