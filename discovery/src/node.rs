//! One instance of a service, and its value in a registry.
//!
//! The value is the JSON of the article's Go programs, so both implementations read each other's nodes. The
//! invariant: a parsed node has an address that can be connected to, at most [`MAX_TAGS`] tags, and came
//! from at most [`MAX_VALUE_BYTES`]. Whether its address is allowed is decided by the client.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::tags::MAX_TAGS;
use crate::{ParseError, ServiceName, Tags};

/// Maximum size of a value in a registry, in bytes. A typical one has about 100.
pub const MAX_VALUE_BYTES: usize = 8 * 1024;

/// One running instance of a service: its address and its tags.
///
/// [Chapter 1 of the guide](crate::guide#1-a-node) begins with one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServiceNode {
    /// Name of the service.
    pub service: ServiceName,
    /// Address for connections.
    pub address: SocketAddr,
    /// Metadata, such as its version.
    pub tags: Tags,
}

/// A node's value in the registry, field by field as the article's Go programs write it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Value {
    service_name: String,
    #[serde(rename = "IP")]
    ip: IpAddr,
    port: u16,
    tags: Option<Tags>,
}

impl ServiceNode {
    /// Creates a node without tags.
    pub fn new(service: ServiceName, address: SocketAddr) -> Self {
        Self {
            service,
            address,
            tags: Tags::new(),
        }
    }

    /// Replaces the tags.
    pub fn with_tags(self, tags: Tags) -> Self {
        Self { tags, ..self }
    }

    /// Returns the tag `version`.
    pub fn version(&self) -> Option<&str> {
        self.tags.get("version")
    }

    /// Returns the tag `weight`, 1 to 1000; 1 if it is missing or invalid.
    pub fn weight(&self) -> u16 {
        let weight = self.tags.get("weight").and_then(|text| text.parse().ok());
        weight
            .filter(|weight| (1..=1000).contains(weight))
            .unwrap_or(1)
    }

    /// Returns the node's value in the registry:
    /// `{"ServiceName":"greeter","IP":"10.0.0.5","Port":8080,"Tags":{"version":"v1"}}`.
    pub fn to_json(&self) -> String {
        let value = Value {
            service_name: self.service.to_string(),
            ip: self.address.ip(),
            port: self.address.port(),
            tags: Some(self.tags.clone()),
        };
        serde_json::to_string(&value).expect("names, addresses and tags are JSON strings")
    }

    /// Parses a value that [`to_json`](Self::to_json) or another program wrote. Ignores unknown fields; `Tags`
    /// may be null or missing.
    ///
    /// # Errors
    /// [`ParseError`] if it is longer than [`MAX_VALUE_BYTES`], is not such JSON, has more than [`MAX_TAGS`]
    /// tags, or an address that cannot be connected to.
    pub fn from_json(json: &[u8]) -> Result<Self, ParseError> {
        let invalid =
            |reason: String| ParseError::new("node", &String::from_utf8_lossy(json), reason);
        if json.len() > MAX_VALUE_BYTES {
            return Err(invalid(format!("longer than {MAX_VALUE_BYTES} bytes")));
        }
        let value: Value =
            serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
        let tags = value.tags.unwrap_or_default();
        if tags.len() > MAX_TAGS {
            return Err(invalid(format!("more than {MAX_TAGS} tags")));
        }
        if value.port == 0 || value.ip.is_unspecified() || value.ip.is_multicast() {
            return Err(invalid("this address cannot be connected to".into()));
        }
        Ok(Self {
            service: value.service_name.parse()?,
            address: SocketAddr::new(value.ip, value.port),
            tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ServiceNode, ParseError> {
        ServiceNode::from_json(json.as_bytes())
    }

    #[test]
    fn the_value_is_the_articles_json() {
        let node = ServiceNode::new("greeter".parse().unwrap(), "10.0.0.5:8080".parse().unwrap())
            .with_tags("version=v1".parse().unwrap());
        let json =
            r#"{"ServiceName":"greeter","IP":"10.0.0.5","Port":8080,"Tags":{"version":"v1"}}"#;
        assert_eq!(node.to_json(), json);
        assert_eq!(read(json).unwrap(), node);
    }

    #[test]
    fn an_ipv6_node_round_trips() {
        let node = ServiceNode::new(
            "greeter".parse().unwrap(),
            "[2001:db8::1]:80".parse().unwrap(),
        );
        assert!(node.to_json().contains(r#""IP":"2001:db8::1""#));
        assert_eq!(read(&node.to_json()).unwrap(), node);
    }

    #[test]
    fn unknown_fields_and_missing_tags_are_accepted() {
        for tags in [
            r#","Tags":null"#,
            "",
            r#","Tags":{},"Weight":3,"Zone":{"a":[1]}"#,
        ] {
            let json = format!(r#"{{"Port":1,"IP":"::1","ServiceName":"a"{tags}}}"#);
            assert_eq!(read(&json).unwrap().tags, Tags::new(), "{json}");
        }
    }

    #[test]
    fn a_value_may_have_32_tags_and_8192_bytes() {
        let tags: Vec<_> = (0..32).map(|n| format!(r#""{n}":"""#)).collect();
        let tags = tags.join(",");
        let json = format!(r#"{{"ServiceName":"a","IP":"::1","Port":1,"Tags":{{{tags}}}}}"#);
        let padded = format!("{json:<8192}");
        assert_eq!(read(&padded).unwrap().tags.len(), 32);
        assert!(read(&format!("{json:<8193}")).is_err());
    }

    #[test]
    fn a_malformed_value_is_an_error() {
        let with =
            |ip: &str, port: &str| format!(r#"{{"ServiceName":"a","IP":{ip},"Port":{port}}}"#);
        let many: Vec<String> = (0..=MAX_TAGS).map(|n| format!(r#""{n}":"""#)).collect();
        for bad in [
            String::new(),
            "null".into(),
            "{".into(),
            with(r#""localhost""#, "80"),
            with(r#""10.0.0.1""#, "0"),
            with(r#""10.0.0.1""#, "65536"),
            with(r#""10.0.0.1""#, r#""80""#),
            with(r#""0.0.0.0""#, "80"),
            with(r#""::""#, "80"),
            with(r#""224.0.0.1""#, "80"),
            r#"{"ServiceName":"a/b","IP":"::1","Port":1}"#.into(),
            r#"{"ServiceName":"a","IP":"::1","Port":1,"Tags":{"a":1}}"#.into(),
            format!(
                r#"{{"ServiceName":"a","IP":"::1","Port":1,"Tags":{{{}}}}}"#,
                many.join(",")
            ),
            format!(
                r#"{{"ServiceName":"a","IP":"::1","Port":1,"X":"{}"}}"#,
                "x".repeat(MAX_VALUE_BYTES)
            ),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_invalid_weight_is_one() {
        let weight = |text: &str| {
            let node = ServiceNode::new("a".parse().unwrap(), "10.0.0.1:1".parse().unwrap());
            node.with_tags(format!("weight={text}").parse().unwrap())
                .weight()
        };
        assert_eq!(
            ["5", "1000", "0", "1001", "-1", "many"].map(weight),
            [5, 1000, 1, 1, 1, 1]
        );
    }
}
