use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use discovery::{ServiceName, Tags};

/// Where requests whose path begins with a prefix go: `/greeter=greeter`, or with tags that the
/// nodes must have, `/beta=greeter?version=v2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whole segments of a path, cut off before the request goes on. Empty for `/`.
    pub prefix: String,
    /// Whose nodes answer.
    pub service: ServiceName,
    /// What these nodes have.
    pub tags: Tags,
}

impl Route {
    /// What is left of a path behind the prefix, if it begins with that.
    pub fn cut<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

impl FromStr for Route {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (prefix, target) = text
            .split_once('=')
            .context("expected PREFIX=SERVICE[?tag=value&…]")?;
        let (service, query) = target.split_once('?').unwrap_or((target, ""));
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        ensure!(
            prefix.starts_with('/'),
            "the prefix has to begin with a slash"
        );
        ensure!(
            prefix.bytes().all(letter),
            "the prefix may hold letters, digits and -._~/ only"
        );
        if prefix
            .split('/')
            .any(|segment| [".", ".."].contains(&segment))
            || prefix.contains("//")
        {
            bail!("the prefix has to be whole segments, without . and ..");
        }
        Ok(Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
            service: service.parse()?,
            tags: query.replace('&', ",").parse()?,
        })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "/" } else { "" };
        write!(f, "{}{slash}={}", self.prefix, self.service)?;
        if self.tags.is_empty() {
            return Ok(());
        }
        write!(f, "?{}", self.tags.to_string().replace(',', "&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        text.parse().unwrap()
    }

    #[test]
    fn a_route_is_a_prefix_a_service_and_tags() {
        let beta = route("/beta=greeter?version=v2&region=cn");
        assert_eq!(
            (beta.prefix.as_str(), beta.service.as_str()),
            ("/beta", "greeter")
        );
        assert_eq!(beta.tags, "version=v2,region=cn".parse().unwrap());
        assert_eq!(route("/a/=b").prefix, "/a");
        for text in [
            "/=greeter",
            "/greeter=greeter",
            "/a/b=c?region=cn&version=v1",
        ] {
            assert_eq!(route(text).to_string(), text);
        }
        for bad in [
            "",
            "greeter",
            "greeter=a",
            "/a",
            "/a=",
            "/a=b/c",
            "/a b=c",
            "/a//b=c",
            "/..=a",
            "/a=b?c",
        ] {
            assert!(bad.parse::<Route>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_is_cut_off_at_whole_segments() {
        let route = route("/greeter=greeter");
        assert_eq!(route.cut("/greeter/greet/Ada"), Some("/greet/Ada"));
        assert_eq!(route.cut("/greeter"), Some(""));
        assert_eq!(route.cut("/greeters"), None);
        assert_eq!(route.cut("/"), None);
        assert_eq!("/=greeter".parse::<Route>().unwrap().cut("/x"), Some("/x"));
    }
}
