//! The URL of a registry ([RFC 3986](https://www.rfc-editor.org/rfc/rfc3986)): kind, servers, prefix, access.
//!
//! The invariant: neither a formatted URL nor an error about one contains a password, whatever the text
//! was. Whether this build has the registry is checked by `connect`.

use std::fmt;
use std::str::FromStr;

use super::access::Access;
use crate::ParseError;

/// Fault of a URL whose path or parameters may contain a part of a password.
const LATE_AT: &str =
    "an @ after the first / or ?, write %2F for a / in a password, %3F for a ?, %40 for an @";

const ALLOWED: &str = "expected etcd://host[:port][,host[:port]…][/prefix], etcd+tls:// or \
     zookeeper:// with the same, consul://host[:port], or memory:";

/// Schemes and their default ports.
const SCHEMES: [(&str, u16); 4] = [
    ("etcd", 2379),
    ("etcd+tls", 2379),
    ("consul", 8500),
    ("zookeeper", 2181),
];

/// Address of a registry, with credentials: `etcd://10.0.0.1:2379,10.0.0.2:2379/prefix`,
/// `zookeeper://` with the same parts, `consul://127.0.0.1:8500` for a Consul agent, or `memory:` for one
/// in this process alone.
///
/// ```
/// # fn main() -> Result<(), discovery::Error> {
/// let url: discovery::RegistryUrl = "etcd://10.0.0.1,10.0.0.2:2380/demo".parse()?;
/// assert_eq!(url.endpoints(), ["10.0.0.1:2379", "10.0.0.2:2380"]);
/// assert_eq!(url.prefix(), "/demo/"); // /services/ without a path
/// # Ok(()) }
/// ```
///
/// With authentication of clients or servers:
///
/// ```text
/// etcd://user:password@host                    percent-encoded: p%40ss is p@ss
/// etcd://user@host?password-file=FILE          a line break at its end does not count
/// etcd+tls://host                              a certificate issued by one of the system's roots
/// etcd+tls://host?ca=FILE                      one issued by this root
/// etcd+tls://host?cert=FILE&key=FILE           presents a client certificate
/// etcd+tls://10.0.0.1?server-name=etcd.corp    a certificate for another name
/// consul://host?token-file=FILE                an ACL token
/// zookeeper://user:password@host               a digest, or user@host?password-file=FILE
/// ```
///
/// Files are read for each connection; certificates and keys are PEM. Neither `Display` nor `Debug`
/// contains a password, and no error repeats a URL. The command line of a process is visible to all users
/// of the machine: put a URL with a password into the environment, or the password into a file.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryUrl {
    scheme: &'static str,
    endpoints: Vec<String>,
    path: Option<String>,
    pub(super) access: Access,
}

impl RegistryUrl {
    /// Returns the scheme, which is the kind of registry.
    pub fn scheme(&self) -> &str {
        self.scheme
    }

    /// Returns the servers, each as `host:port`.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Returns the prefix of all keys: `/services/`, or the URL's path with a slash at its end. The path `/`
    /// is an empty prefix.
    pub fn prefix(&self) -> String {
        match self.path.as_deref() {
            None => "/services/".into(),
            Some("") => String::new(),
            Some(path) => format!("/{path}/"),
        }
    }

    fn memory() -> Self {
        Self {
            scheme: "memory",
            endpoints: Vec::new(),
            path: None,
            access: Access::default(),
        }
    }

    /// Returns the part of an invalid URL that may be shown: its scheme, if it is a known one. Anything else
    /// may be a part of a password: `etcd://root:7/s3cret@host` has the host `root` and the path
    /// `s3cret@host`, by the rules of URLs.
    pub fn redact(text: &str) -> String {
        let (scheme, rest) = split(text, ':');
        match rest {
            _ if text.is_empty() => String::new(),
            Some(rest) if is_scheme(scheme) => {
                let slashes = if rest.starts_with("//") { "//" } else { "" };
                format!("{scheme}:{slashes}…")
            }
            _ => "…".into(),
        }
    }

    /// Returns true if a text given for something else may be a registry URL with a password.
    pub fn may_be(text: &str) -> bool {
        let (start, rest) = split(text.trim_start(), ':');
        text.contains('@') || text.contains("://") || (rest.is_some() && is_scheme(start))
    }
}

fn is_scheme(text: &str) -> bool {
    text == "memory" || SCHEMES.iter().any(|(scheme, _)| *scheme == text)
}

impl FromStr for RegistryUrl {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text).map_err(|reason| ParseError::new("registry URL", &Self::redact(text), reason))
    }
}

/// Parses a URL. The error names the fault and repeats nothing of the text.
fn parse(text: &str) -> Result<RegistryUrl, String> {
    let allowed = |fault| format!("{fault}, {ALLOWED}");
    if text == "memory:" {
        return Ok(RegistryUrl::memory());
    }
    let (scheme, rest) = text.split_once(':').ok_or_else(|| allowed("no scheme"))?;
    let kind = SCHEMES.into_iter().find(|(name, _)| *name == scheme);
    let (scheme, default_port) = kind.ok_or_else(|| allowed("unknown scheme"))?;
    let rest = rest.strip_prefix("//");
    let rest = rest.ok_or_else(|| allowed("no // after the scheme"))?;
    if rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(allowed("a blank, a control character or a #"));
    }
    let late = rest.find(['/', '?']).unwrap_or(rest.len());
    if rest[late..].contains('@') {
        return Err(LATE_AT.into());
    }
    let (rest, query) = split(rest, '?');
    let (servers, path) = split(rest, '/');
    let (user, servers) = match servers.rsplit_once('@') {
        Some((user, servers)) => (Some(user), servers),
        None => (None, servers),
    };
    let endpoints = servers.split(',').map(|s| endpoint(s, default_port));
    let endpoints = endpoints.collect::<Option<Vec<_>>>();
    let endpoints = endpoints.ok_or_else(|| allowed("invalid host or port"))?;
    // Requests go to one agent, which has services without a prefix.
    if scheme == "consul" && (endpoints.len() > 1 || path.is_some()) {
        return Err(allowed("more than one agent or a path"));
    }
    Ok(RegistryUrl {
        scheme,
        endpoints,
        path: path.map(|path| path.trim_matches('/').to_owned()),
        access: Access::parse(scheme, user, query)?,
    })
}

/// Splits a text at the first `mark`. The second part is `None` without one.
fn split(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
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
        write!(f, "{}://", self.scheme)?;
        self.access.fmt_user(f)?;
        write!(f, "{}", self.endpoints.join(","))?;
        if let Some(path) = &self.path {
            write!(f, "/{path}")?;
        }
        self.access.fmt_parameters(f)
    }
}

impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::{Password, Tls};
    use super::*;

    fn parse(text: &str) -> RegistryUrl {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn servers_ports_and_prefix_are_parsed() {
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
        assert_eq!(parse("consul://[::1]").endpoints(), ["[::1]:8500"]);
        let zookeeper = parse("zookeeper://a,b:1/demo");
        assert_eq!(zookeeper.endpoints(), ["a:2181", "b:1"]);
        assert_eq!(zookeeper.prefix(), "/demo/");
        assert_eq!(parse("memory:").to_string(), "memory:");
        let schemes = ["etcd://a", "etcd+tls://a", "memory:"].map(|url| parse(url).scheme);
        assert_eq!(schemes, ["etcd", "etcd+tls", "memory"]);
    }

    #[test]
    fn the_prefix_is_services_unless_there_is_a_path() {
        assert_eq!(parse("etcd://a").prefix(), "/services/");
        assert_eq!(parse("etcd://a/").prefix(), "");
        assert_eq!(parse("etcd://a/x/").prefix(), "/x/");
    }

    #[test]
    fn an_invalid_url_names_the_valid_forms() {
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
            "etcd://a b",
            "etcd://a/b c",
            "etcd://a/b\u{7}",
            "etcd://a#b",
            "etcd+tls:a",
            "etcds://a",
            "consul://a,b",
            "consul://a/services",
            "http://a:2379",
            "memory",
            "memory:x",
        ] {
            let error = bad.parse::<RegistryUrl>().expect_err(bad);
            assert!(error.to_string().contains("etcd://host"), "{error}");
        }
    }

    #[test]
    fn a_user_has_a_password_or_a_file_with_it() {
        let user = |text| parse(text).access.user.expect("a user");
        let given = user("etcd://ro%40ot:p%40%3a%2fs:@a:1,b/x");
        assert_eq!(given.name, "ro@ot");
        assert!(given.password == Password::Given("p@:/s:".into()));
        let in_file = user("etcd+tls://root@a?password-file=/run/a%20b");
        assert!(in_file.password == Password::In("/run/a b".into()));
        assert_eq!(user("zookeeper://root:p@a/x").name, "root");
        assert!(parse("etcd://a").access == Access::default());
    }

    #[test]
    fn tls_parameters_are_parsed() {
        let tls = |text| parse(text).access.tls.expect("TLS");
        assert!(tls("etcd+tls://a") == Tls::default());
        let all = tls("etcd+tls://a/x?key=/k&cert=c.pem&ca=/a%26b&server-name=etcd.corp");
        assert_eq!(all.ca, Some("/a&b".into()));
        assert_eq!(all.identity, Some(("c.pem".into(), "/k".into())));
        assert_eq!(all.server_name, Some("etcd.corp".into()));
    }

    #[test]
    fn invalid_parameters_are_rejected() {
        for bad in [
            "etcd://a?",
            "etcd://a/x?y=z",
            "etcd://a?ca=/ca.pem",
            "etcd://a?password-file=/p",
            "etcd://a?token-file=/t",
            "consul://a?password-file=/p",
            "etcd+tls://a?cert=/c",
            "etcd+tls://a?key=/k",
            "etcd+tls://a?ca",
            "etcd+tls://a?ca=",
            "etcd+tls://a?ca=/a&ca=/b",
            "etcd+tls://a?ca=%ff",
        ] {
            let error = bad.parse::<RegistryUrl>().expect_err(bad);
            assert!(error.to_string().contains("server-name"), "{error}");
        }
    }

    #[test]
    fn no_output_has_a_password() {
        for (text, shown) in [
            ("etcd://root:s3cret@a:1/x", "etcd://root@a:1/x"),
            (
                "etcd+tls://r%40t:s3cret@a?ca=/c%20a&server-name=b",
                "etcd+tls://r%40t@a:2379?ca=/c%20a&server-name=b",
            ),
            (
                "etcd+tls://root@a?password-file=p&cert=/c&key=/k",
                "etcd+tls://root@a:2379?cert=/c&key=/k&password-file=p",
            ),
            (
                "consul://a?token-file=/run/t",
                "consul://a:8500?token-file=/run/t",
            ),
            (
                "zookeeper://root:s3cret@a,b/x",
                "zookeeper://root@a:2181,b:2181/x",
            ),
        ] {
            let url = parse(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("RegistryUrl({shown})"));
        }
        for (bad, shown) in [
            ("etcd://root:s3cret@", "etcd://…"),
            ("etcd://root:7/s3cret@host", "etcd://…"),
            ("etcd+tls://root:7?ca=s3cret@host", "etcd+tls://…"),
            ("etcd://a?password=s3@cret", "etcd://…"),
            ("etcd://root:s3cret", "etcd://…"),
            ("etcd:/root:s3cret@host", "etcd:…"),
            ("zookeeper://root:s3cret host", "zookeeper://…"),
            ("etcd://root%3as3cret@a?password-file=/p", "etcd://…"),
            ("etcd://root,s3cret:s3cret@a", "etcd://…"),
            ("consul://root:s3cret@a", "consul://…"),
            ("memory:s3cret", "memory:…"),
            ("etcds://root:s3cret@a", "…"),
            ("root:s3cret@a", "…"),
            ("s3cret", "…"),
            ("", ""),
        ] {
            let error = bad.parse::<RegistryUrl>().expect_err(bad);
            let message = error.to_string();
            let reason = message.strip_prefix(&format!("registry URL {shown:?}: "));
            assert!(reason.is_some_and(|reason| reason.len() > 20), "{message}");
            assert!(
                !format!("{error} {error:?}").contains("s3cret"),
                "{error:?}"
            );
        }
    }
}
