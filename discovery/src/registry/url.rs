use std::fmt;
use std::str::FromStr;

use crate::Error;

pub(super) const ALLOWED: &str = "expected etcd://host[:port][,host[:port]…][/prefix] or memory:";

/// Which registry, and where: `etcd://10.0.0.1:2379,10.0.0.2:2379/prefix`, or `memory:` for one that
/// lives in this process alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUrl {
    scheme: &'static str,
    endpoints: Vec<String>,
    path: Option<String>,
}

impl RegistryUrl {
    /// What kind of registry.
    pub fn scheme(&self) -> &str {
        self.scheme
    }

    /// The servers, each as `host:port`.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Where keys begin: `/services/`, or the URL's path with a slash at its end. The path `/`
    /// is no prefix at all.
    pub fn prefix(&self) -> String {
        match self.path.as_deref() {
            None => "/services/".into(),
            Some("") => String::new(),
            Some(path) => format!("/{path}/"),
        }
    }
}

impl FromStr for RegistryUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::invalid("registry URL", text, reason);
        if text == "memory:" {
            return Ok(Self {
                scheme: "memory",
                endpoints: Vec::new(),
                path: None,
            });
        }
        let rest = text
            .strip_prefix("etcd://")
            .ok_or_else(|| invalid(ALLOWED))?;
        let (servers, path) = match rest.split_once('/') {
            Some((servers, path)) => (servers, Some(path.trim_matches('/').to_owned())),
            None => (rest, None),
        };
        let endpoints: Option<Vec<_>> = servers.split(',').map(|s| endpoint(s, 2379)).collect();
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || "?#".contains(c)) {
            return Err(invalid(ALLOWED));
        }
        Ok(Self {
            scheme: "etcd",
            endpoints: endpoints.ok_or_else(|| invalid(ALLOWED))?,
            path,
        })
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`, with the port filled in.
fn endpoint(text: &str, default_port: u16) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|p| *p > 0)?),
        _ => (text, default_port),
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let sound = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    sound.then(|| format!("{host}:{port}"))
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.endpoints.is_empty() {
            return write!(f, "{}:", self.scheme);
        }
        write!(f, "{}://{}", self.scheme, self.endpoints.join(","))?;
        self.path.iter().try_for_each(|path| write!(f, "/{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RegistryUrl {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn servers_ports_and_prefix_are_read() {
        let url = parse("etcd://etcd,10.0.0.2:4001,[::1]:2380/demo/services");
        assert_eq!(
            url.endpoints(),
            ["etcd:2379", "10.0.0.2:4001", "[::1]:2380"]
        );
        assert_eq!(url.prefix(), "/demo/services/");
        assert_eq!(
            url.to_string(),
            "etcd://etcd:2379,10.0.0.2:4001,[::1]:2380/demo/services"
        );
        assert_eq!(parse("etcd://[::1]").endpoints(), ["[::1]:2379"]);
        assert_eq!(parse("memory:").to_string(), "memory:");
    }

    #[test]
    fn the_prefix_is_services_unless_there_is_a_path() {
        assert_eq!(parse("etcd://a").prefix(), "/services/");
        assert_eq!(parse("etcd://a/").prefix(), "");
        assert_eq!(parse("etcd://a/x/").prefix(), "/x/");
    }

    #[test]
    fn anything_else_says_what_is_allowed() {
        for bad in [
            "",
            "etcd",
            "etcd:",
            "etcd://",
            "etcd://:2379",
            "etcd://a:0",
            "etcd://a:b",
            "etcd://a:70000",
            "etcd://a,,b",
            "etcd://::1:2379",
            "etcd://[::1",
            "etcd://u:p@a",
            "etcd://a b",
            "etcd://a/x?y=z",
            "consul://a",
            "http://a:2379",
            "memory",
            "memory:x",
        ] {
            let error = bad.parse::<RegistryUrl>().expect_err(bad);
            assert!(error.to_string().contains("etcd://host"), "{error}");
        }
    }
}
