//! The addresses at which nodes may be. Whoever can write to the registry could make the gateway connect
//! to anything else it can reach, to itself, or to the registry.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use discovery::Network;
use log::debug;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

/// How often names of the registry are looked up again: a container that is replaced has a new address.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(30);

/// The same as long as a name was never found.
const LOOKUP_RETRY: Duration = Duration::from_secs(1);

/// How long one look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// Where the registry listens, by the `host:port` of its URL.
///
/// Names are looked up beside everything else, so that no request and no snapshot waits for one. Until
/// then a name stands for all addresses: a node with the registry's port is not admitted.
pub(crate) struct RegistryEndpoints(Vec<Endpoint>);

struct Endpoint {
    text: String,
    port: u16,
    /// `None` before the first look-up of a name.
    addresses: ArcSwapOption<Vec<SocketAddr>>,
}

impl RegistryEndpoints {
    pub(crate) fn new(endpoints: &[String]) -> Arc<Self> {
        let endpoints = endpoints.iter().filter_map(|text| Endpoint::new(text));
        Arc::new(Self(endpoints.collect()))
    }

    /// Looks names up for as long as it is polled.
    pub(crate) async fn follow(&self) -> std::convert::Infallible {
        loop {
            let mut all_known = true;
            for endpoint in self.0.iter().filter(|endpoint| endpoint.is_name()) {
                endpoint.look_up().await;
                all_known &= endpoint.addresses.load().is_some();
            }
            sleep(if all_known {
                LOOKUP_INTERVAL
            } else {
                LOOKUP_RETRY
            })
            .await;
        }
    }

    fn contain(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|endpoint| endpoint.contains(address))
    }
}

impl Endpoint {
    /// Of `host:port`, which is what a URL's endpoints are.
    fn new(text: &str) -> Option<Self> {
        let port = text.rsplit_once(':')?.1.parse().ok()?;
        let literal = text.parse().ok().map(|address| Arc::new(vec![address]));
        Some(Self {
            text: text.to_owned(),
            port,
            addresses: ArcSwapOption::new(literal),
        })
    }

    fn is_name(&self) -> bool {
        self.text.parse::<SocketAddr>().is_err()
    }

    /// Looks the name up. When that fails, the addresses that were found before stay.
    async fn look_up(&self) {
        match timeout(LOOKUP_LIMIT, lookup_host(&self.text)).await {
            Ok(Ok(found)) => self.addresses.store(Some(Arc::new(found.collect()))),
            Ok(Err(error)) => debug!(registry = self.text, error:%; "look-up failed"),
            Err(_) => debug!(registry = self.text; "look-up timed out"),
        }
    }

    fn contains(&self, address: SocketAddr) -> bool {
        if self.port != address.port() {
            return false;
        }
        let addresses = self.addresses.load();
        let Some(addresses) = addresses.as_ref() else {
            return true;
        };
        let ip = address.ip();
        let is_same = |registry: IpAddr| registry.to_canonical() == ip.to_canonical();
        // A registry on this machine may listen on all of its addresses.
        let both_are_local = |registry| is_local(registry) && is_local(ip);
        let mut registries = addresses.iter().map(SocketAddr::ip);
        registries.any(|registry| is_same(registry) || both_are_local(registry))
    }
}

/// Returns whether there may be a node at an address: in one of the networks, not at one of our `own`
/// and not at the registry's.
pub(crate) fn allowed(
    networks: Vec<Network>,
    own: [SocketAddr; 2],
    registry: Arc<RegistryEndpoints>,
) -> impl Fn(SocketAddr) -> bool + Send + Sync + 'static {
    move |address| {
        let is_inside = networks
            .iter()
            .any(|network| network.contains(address.ip()));
        is_inside && !own.iter().any(|own| leads_to(*own, address)) && !registry.contain(address)
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
        let registry = RegistryEndpoints::new(&[]);
        allowed(networks.collect(), [own, own], registry)(address.parse().unwrap())
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
    fn is_registry(endpoints: &RegistryEndpoints, address: &str) -> bool {
        endpoints.contain(address.parse().unwrap())
    }

    #[test]
    fn the_registry_is_no_node() {
        let endpoints = ["192.0.2.1:2379", "[2001:db8::1]:2380", "127.0.0.1:8500"];
        let registry = RegistryEndpoints::new(&endpoints.map(String::from));
        for address in [
            "192.0.2.1:2379",
            "[::ffff:192.0.2.1]:2379",
            "[2001:db8::1]:2380",
            "127.0.0.1:8500",
            "127.0.0.9:8500",
        ] {
            assert!(is_registry(&registry, address), "{address}");
        }
        for address in ["192.0.2.1:2380", "192.0.2.2:2379", "203.0.113.2:8500"] {
            assert!(!is_registry(&registry, address), "{address}");
        }
    }

    #[actix_web::test]
    async fn a_name_is_all_addresses_until_it_is_found() {
        let registry = RegistryEndpoints::new(&["localhost:2379".into()]);
        assert!(is_registry(&registry, "192.0.2.1:2379"));
        assert!(!is_registry(&registry, "192.0.2.1:2380"));
        registry.0[0].look_up().await;
        assert!(!is_registry(&registry, "192.0.2.1:2379"));
        assert!(is_registry(&registry, "127.0.0.1:2379"));
    }

    #[actix_web::test]
    async fn a_failed_look_up_changes_nothing() {
        let registry = RegistryEndpoints::new(&["name.invalid:2379".into()]);
        let endpoint = &registry.0[0];
        endpoint.look_up().await;
        assert!(is_registry(&registry, "192.0.2.1:2379"), "never found");
        let found = vec!["192.0.2.1:2379".parse().unwrap()];
        endpoint.addresses.store(Some(Arc::new(found)));
        endpoint.look_up().await;
        assert!(is_registry(&registry, "192.0.2.1:2379"));
        assert!(!is_registry(&registry, "192.0.2.2:2379"));
    }
}
