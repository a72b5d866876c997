//! Tags of a node, and the tags that a caller requires.
//!
//! The invariant: keys are unique and sorted, so equal tags are equal values and have one text. Two tags
//! have a meaning here, `version` and `weight` (`node.rs`); all others are the user's.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::ParseError;

/// Metadata of a node (`version=v2`, `region=cn`, `weight=5`), or the tags that a caller requires.
///
/// As text: `key=value`, several separated by commas.
///
/// ```
/// use discovery::Tags;
///
/// # fn main() -> Result<(), discovery::Error> {
/// let node: Tags = "version=v2, region=cn".parse()?;
/// assert_eq!(node.to_string(), "region=cn,version=v2"); // in the order of their keys
/// assert!(node.contain(&"version=v2".parse()?));
/// assert!(!node.contain(&"version=v2,zone=a".parse()?));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub struct Tags(Vec<Tag>); // sorted; smaller than a map, whose smallest node has room for eleven

type Tag = (Box<str>, Box<str>);

/// Maximum number of tags of a node.
pub const MAX_TAGS: usize = 32;

impl Tags {
    /// Creates empty tags, which every node matches.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the value of one tag.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.find(key).ok()?;
        Some(&self.0[found].1)
    }

    /// Sets one tag and replaces its former value.
    ///
    /// # Errors
    /// [`ParseError`] if the key is empty, or either contains a comma, an equals sign (the key), a control character, or
    /// a blank at an end: its text could not be parsed again.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), ParseError> {
        let plain = |text: &str| {
            text.trim() == text && !text.contains(|c: char| c == ',' || c.is_control())
        };
        if key.is_empty() || key.contains('=') || !plain(key) || !plain(value) {
            let allowed = "key=value, without commas, control characters, or blanks at an end";
            return Err(ParseError::new("tag", &format!("{key}={value}"), allowed));
        }
        self.set(key, value);
        Ok(())
    }

    /// Sets one tag. Returns its former value.
    fn set(&mut self, key: &str, value: &str) -> Option<Box<str>> {
        match self.find(key) {
            Ok(found) => Some(std::mem::replace(&mut self.0[found].1, value.into())),
            Err(place) => {
                self.0.insert(place, (key.into(), value.into()));
                None
            }
        }
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(key))
    }

    /// Returns true if these tags contain all of the `wanted` ones.
    pub fn contain(&self, wanted: &Tags) -> bool {
        wanted
            .iter()
            .all(|(key, value)| self.get(key) == Some(value))
    }

    /// Returns these tags together with the `others`, `None` if a key has two values.
    pub fn and(mut self, others: &Tags) -> Option<Self> {
        for (key, value) in others.iter() {
            if self.set(key, value).is_some_and(|old| *old != *value) {
                return None;
            }
        }
        Some(self)
    }

    /// Returns all tags in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Returns the number of tags.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<String, String>> for Tags {
    fn from(tags: BTreeMap<String, String>) -> Self {
        let tags = tags.into_iter();
        Self(
            tags.map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl FromStr for Tags {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut tags = Self::new();
        for pair in text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| ParseError::new("tag", pair, "expected key=value"))?;
            tags.insert(key.trim(), value.trim())?;
        }
        Ok(tags)
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_round_trip_as_text() {
        let tags: Tags = " region=cn, version=v2 ,".parse().unwrap();
        assert_eq!(tags.to_string(), "region=cn,version=v2");
        assert_eq!(tags.get("version"), Some("v2"));
        assert_eq!("".parse::<Tags>().unwrap(), Tags::new());
        assert_eq!("a=b=c".parse::<Tags>().unwrap().get("a"), Some("b=c"));
        for bad in ["version", "=v2", "a=\u{7}"] {
            assert!(bad.parse::<Tags>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ambiguous_tags_are_rejected() {
        let mut tags = Tags::new();
        for (key, value) in [
            ("", "v"),
            ("a=b", "v"),
            ("a,b", "v"),
            (" a", "v"),
            ("a\u{7}", "v"),
            ("a", "v,w"),
            ("a", "v "),
            ("a", "v\u{7}"),
        ] {
            assert!(tags.insert(key, value).is_err(), "{key:?}={value:?}");
        }
        assert!(tags.is_empty());
        tags.insert("a", "b=c").unwrap();
        assert!(!tags.is_empty() && tags.len() == 1);
    }

    #[test]
    fn a_node_matches_with_every_wanted_tag() {
        let node: Tags = "version=v2,region=cn".parse().unwrap();
        assert!(node.contain(&Tags::new()));
        assert!(node.contain(&"version=v2".parse().unwrap()));
        assert!(!node.contain(&"version=v1".parse().unwrap()));
        assert!(!node.contain(&"version=v2,zone=a".parse().unwrap()));
    }

    #[test]
    fn contradicting_tags_do_not_combine() {
        let tags = |text: &str| text.parse::<Tags>().unwrap();
        assert_eq!(
            tags("a=1,b=2").and(&tags("b=2,c=3")),
            Some(tags("a=1,b=2,c=3"))
        );
        assert_eq!(tags("a=1").and(&tags("a=2")), None);
    }
}
