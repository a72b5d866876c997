//! Address ranges, and the addresses that a service may have at all.
//!
//! An entry in a registry makes clients send requests to its address, so a forged one is a way to
//! [server-side request forgery][1]. The invariant: an address is judged by what it reaches, however it is
//! written: IPv4-mapped, translated and tunnelled addresses count as the IPv4 address they contain. Which
//! networks are allowed beyond that is configuration.
//!
//! [1]: https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::ParseError;

/// A range of addresses such as `10.0.0.0/8`, `fd00::/8`, or one address
/// ([RFC 4632](https://www.rfc-editor.org/rfc/rfc4632#section-3.1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Returns true if it contains the address. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let differ = network.to_bits() ^ ip.to_bits();
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let differ = network.to_bits() ^ ip.to_bits();
                differ.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }

    fn bits(address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(_) => Ipv4Addr::BITS,
            IpAddr::V6(_) => Ipv6Addr::BITS,
        }
    }
}

/// Metadata services of clouds, which return credentials to any process (169.254.169.254 and the like are
/// link-local): Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Metadata services with IPv6 addresses: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Returns true if a service may have this address. Link-local addresses, clouds' metadata
/// services, multicast, broadcast and addresses that mean "here" are refused, also where an IPv6
/// address contains such an IPv4 address for a translator or a tunnel.
pub fn is_for_services(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_for_services_v4(ip),
        IpAddr::V6(ip) => {
            let refused = ip.is_unspecified()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || METADATA_V6.contains(&ip);
            !refused && embedded(ip).into_iter().all(is_for_services_v4)
        }
    }
}

fn is_for_services_v4(ip: Ipv4Addr) -> bool {
    let is_this_network = ip.octets()[0] == 0;
    !(is_this_network
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || METADATA_V4.contains(&ip))
}

/// Returns the IPv4 addresses that packets for an IPv6 address may reach. Where a form has several places
/// for an address, those that begin with a zero are left out: they are other fields.
fn embedded(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bits = ip.to_bits();
    let at = |bit: u32| Ipv4Addr::from_bits((bits >> (96 - bit)) as u32);
    // RFC 6052: the bits 64 to 71 are not part of the address around them.
    let joined = bits >> 64 << 56 | bits << 72 >> 72;
    let around = |bit: u32| Ipv4Addr::from_bits((joined >> (88 - bit)) as u32);
    let is_address = |ip: &Ipv4Addr| ip.octets()[0] != 0;
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Vec::new(),         // ::1
        [0, 0, 0, 0, 0, 0, ..] => vec![at(96)],         // IPv4-compatible, RFC 4291
        [0, 0, 0, 0, 0xffff, 0, ..] => vec![at(96)],    // IPv4-translated, RFC 2765
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![at(96)], // NAT64, RFC 6052
        [0x64, 0xff9b, 1, ..] => {
            let places = [around(48), around(56), around(64), at(96)]; // NAT64 of a site, RFC 8215
            places.into_iter().filter(is_address).collect()
        }
        [0x2002, ..] => vec![at(16)], // 6to4, RFC 3056
        [0x2001, 0, ..] => {
            let client = Ipv4Addr::from_bits(!at(96).to_bits()); // Teredo, RFC 4380
            [at(32), client].into_iter().filter(is_address).collect()
        }
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![at(96)], // ISATAP, RFC 5214
        _ => Vec::new(),
    }
}

impl FromStr for Network {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let invalid =
            || ParseError::new("network", text, "expected such as 10.0.0.0/8 or fd00::/8");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits = Self::bits(address);
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| invalid())?;
        match u8::try_from(prefix) {
            Ok(prefix) if u32::from(prefix) <= bits => Ok(Self { address, prefix }),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, ip: &str) -> bool {
        let network: Network = network.parse().unwrap();
        network.contains(ip.parse().unwrap())
    }

    #[test]
    fn a_network_contains_its_prefix() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("192.168.1.7/24", "192.168.1.200", "192.168.2.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("fc00::/7", "fdff::1", "fe00::"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("::/0", "2001:db8::1", "::ffff:8.8.8.8"),
        ] {
            assert!(contains(network, inside), "{inside} in {network}");
            assert!(!contains(network, outside), "{outside} in {network}");
        }
    }

    #[test]
    fn networks_round_trip_and_others_are_rejected() {
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::/8/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        for good in ["10.0.0.0/8", "fc00::/7", "0.0.0.0/0"] {
            assert_eq!(good.parse::<Network>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn unusable_addresses_are_rejected_in_all_forms() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "169.254.170.2",
            "::ffff:100.100.100.200",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::192.0.0.192",
            "64:ff9b::0.0.0.0",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00::",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2002:6464:64c8::",
            "2002:a83f:8110:1::",
            "2001:0:a9fe:a9fe::",
            "2001:0:808:808:0:0:5601:5601",
            "fd00::5efe:169.254.169.254",
            "2001:db8::200:5efe:100.100.100.200",
        ] {
            assert!(!is_for_services(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "10.0.0.5",
            "8.8.8.8",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.5",
            "100.64.0.1",
            "100.100.100.201",
            "192.0.0.191",
            "fd00:ec2::253",
            "2001:db8::1",
            "64:ff9b::10.0.0.5",
            "64:ff9b:1::10.0.0.5",
            "64:ff9b:1:a00:0:500::",
            "2002:a00:5::1",
            "2001:0:808:808:0:0:f5ff:fffa",
            "fd00::5efe:10.0.0.5",
        ] {
            assert!(is_for_services(ip.parse().unwrap()), "{ip}");
        }
    }
}
