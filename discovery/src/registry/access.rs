//! The access part of a registry URL: users, TLS, tokens ([RFC 3986, section 3.2.1][1] and 3.4).
//!
//! The invariant: nothing that is formatted contains a password. Parsing names files and does not read
//! them; they are read for each connection, so that renewed ones apply.
//!
//! [1]: https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const PARAMETERS: &str = "expected after the question mark, each once: password-file=FILE with a user; \
     ca=FILE, cert=FILE with key=FILE, server-name=NAME with etcd+tls; token-file=FILE with consul";

const USER: &str = "expected a user of an etcd or a ZooKeeper with one password: \
     etcd://user:password@host, or etcd://user@host?password-file=FILE; %40 means @";

/// How a client authenticates to the servers, and the servers to it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) user: Option<User>,
    /// TLS settings. `None`: connections are not encrypted.
    pub(super) tls: Option<Tls>,
    /// File with the ACL token of Consul.
    pub(super) token: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: Password,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Password {
    Given(String),
    In(PathBuf),
}

#[cfg(any(feature = "etcd", feature = "zookeeper"))]
impl Password {
    /// Returns the current password.
    pub(super) fn read(&self) -> Result<String, crate::Error> {
        match self {
            Self::Given(password) => Ok(password.clone()),
            Self::In(file) => Ok(super::file::read(file)?
                .trim_end_matches(['\r', '\n'])
                .to_owned()),
        }
    }
}

#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Root certificate of the servers. `None`: the roots of the system.
    pub(super) ca: Option<PathBuf>,
    /// Client certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// Name in the certificates of servers, if it is not the host of the URL.
    pub(super) server_name: Option<String>,
}

impl Access {
    /// Parses the part before the `@` of a URL, and the part after its `?`.
    pub(super) fn parse(
        scheme: &str,
        user: Option<&str>,
        query: Option<&str>,
    ) -> Result<Self, &'static str> {
        let mut parameters = parameters(query).ok_or(PARAMETERS)?;
        if user.is_some() && !(scheme.starts_with("etcd") || scheme == "zookeeper") {
            return Err(USER);
        }
        let user = user
            .map(|user| self::user(user, parameters.remove("password-file")).ok_or(USER))
            .transpose()?;
        let tls = (scheme == "etcd+tls").then(|| self::tls(&mut parameters).ok_or(PARAMETERS));
        let tls = tls.transpose()?;
        let token = (scheme == "consul").then(|| parameters.remove("token-file"));
        let token = token.flatten().map(PathBuf::from);
        if parameters.is_empty() {
            Ok(Self { user, tls, token })
        } else {
            Err(PARAMETERS)
        }
    }

    /// Writes the part before the servers, without the password.
    pub(super) fn fmt_user(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(&user.name))?;
        }
        Ok(())
    }

    /// Writes the parameters, with the question mark.
    pub(super) fn fmt_parameters(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = self.tls.clone().unwrap_or_default();
        let (cert, key) = tls.identity.unzip();
        let password = self.user.as_ref().map(|user| user.password.clone());
        let password_file = password.and_then(|password| match password {
            Password::In(file) => Some(file),
            Password::Given(_) => None,
        });
        let files = [
            ("ca", tls.ca),
            ("cert", cert),
            ("key", key),
            ("password-file", password_file),
            ("token-file", self.token.clone()),
        ];
        let files = files
            .into_iter()
            .filter_map(|(name, file)| Some((name, file?.display().to_string())));
        let server_name = tls.server_name.map(|name| ("server-name", name));
        for (number, (name, value)) in files.chain(server_name).enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            write!(f, "{mark}{name}={}", encoded(&value))?;
        }
        Ok(())
    }
}

fn parameters(query: Option<&str>) -> Option<BTreeMap<&str, String>> {
    let mut parameters = BTreeMap::new();
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = parameter.split_once('=')?;
        let again = parameters.insert(name, decoded(value)?).is_some();
        if again {
            return None;
        }
    }
    Some(parameters)
}

fn user(text: &str, file: Option<String>) -> Option<User> {
    let (name, password) = match (text.split_once(':'), file) {
        (Some((name, password)), None) => (name, Password::Given(decoded(password)?)),
        (None, Some(file)) => (text, Password::In(file.into())),
        _ => return None,
    };
    let name = decoded(name)?;
    // The name is formatted. With a comma or an encoded colon, a password could be a part of it.
    (!name.contains([':', ','])).then_some(User { name, password })
}

fn tls(parameters: &mut BTreeMap<&str, String>) -> Option<Tls> {
    let mut file = |name| parameters.remove(name).map(PathBuf::from);
    let ca = file("ca");
    let identity = match (file("cert"), file("key")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return None,
    };
    let server_name = parameters.remove("server-name");
    Some(Tls {
        ca,
        identity,
        server_name,
    })
}

/// Decodes a percent-encoded text, `None` if it is empty or not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

fn encoded(text: &str) -> impl fmt::Display {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'/')
        .remove(b'_');
    utf8_percent_encode(text, ENCODED)
}
