use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const PARAMETERS: &str = "expected after the question mark, each once: password-file=FILE with a user; \
     ca=FILE, cert=FILE with key=FILE, server-name=NAME with etcd+tls; token-file=FILE with consul";

const USER: &str = "expected a user of an etcd or a ZooKeeper with one password: \
     etcd://user:password@host, or etcd://user@host?password-file=FILE; %40 means @";

/// How a server is made to let us in, and how it is known. Files are only named here: they are read
/// whenever a connection is made, so that renewed ones count.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) user: Option<User>,
    /// Without it, connections are not encrypted.
    pub(super) tls: Option<Tls>,
    /// What Consul knows its clients by.
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
    /// What it is just now.
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
    /// Who vouches for servers, if not those whom the system trusts.
    pub(super) ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// What certificates of servers are made out to, if not to where they are reached.
    pub(super) server_name: Option<String>,
}

impl Access {
    /// From what is before the `@` of a URL, and what is behind its `?`.
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
        match parameters.is_empty() {
            true => Ok(Self { user, tls, token }),
            false => Err(PARAMETERS),
        }
    }

    /// Writes what stands before the servers, which is everything but the password.
    pub(super) fn fmt_user(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut users = self.user.iter();
        users.try_for_each(|user| write!(f, "{}@", encoded(&user.name)))
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
    // The name is shown. With a comma or an encoded colon, a password may be a part of it.
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

/// A text that is not empty, in which `%40` stood for `@` and so on.
fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

fn encoded(text: &str) -> impl fmt::Display {
    const OTHERS: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'/')
        .remove(b'_');
    utf8_percent_encode(text, OTHERS)
}
