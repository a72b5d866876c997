//! The name of a service: parsed once, valid in a key, a URL and a host name.
//!
//! The invariant: a [`ServiceName`] is one DNS label ([RFC 1123][1]), so that it needs no escaping in any of
//! the three.
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc1123#section-2

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::ParseError;

/// The name of a service: one DNS label ([RFC 1123, section 2.1](https://www.rfc-editor.org/rfc/rfc1123#section-2)),
/// so that it can stand in a key, a URL and a host name.
///
/// Cheap to clone. Case-sensitive, as the keys of a registry are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let ends = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > 63 || !letters || ends {
            let allowed = "1 to 63 letters, digits and hyphens, no hyphen at either end";
            return Err(ParseError::new("service name", text, allowed));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_dns_label() {
        for good in ["greeter", "a", "user-service", "V2", &"x".repeat(63)] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a.b",
            "a/b",
            "..",
            "a b",
            "grüße",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }
}
