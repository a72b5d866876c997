use std::sync::OnceLock;

/// As many versions of a service are counted apart, [`NONE`] and [`OTHER`] among them.
pub(super) const VERSIONS: usize = 34;

/// The number of those without a version.
const NONE: usize = 0;

/// The number that all share for whom there is no other.
const OTHER: usize = 1;

/// Longer ones are not for labels.
const LONGEST: usize = 64;

/// A number for each version of a service. Versions come from the registry, and whoever may write
/// there must not fill the memory of those who count: only the first ones get a number of their own.
#[derive(Debug)]
pub(super) struct Versions([OnceLock<Box<str>>; VERSIONS]);

impl Default for Versions {
    fn default() -> Self {
        let mut names = [const { OnceLock::new() }; VERSIONS];
        names[NONE] = Box::<str>::from("").into();
        names[OTHER] = Box::<str>::from("other").into();
        Self(names)
    }
}

impl Versions {
    /// The number of a version. There are few, so comparing them all costs less than hashing one.
    pub(super) fn number(&self, version: Option<&str>) -> usize {
        let version = version.unwrap_or_default();
        if version.len() > LONGEST {
            return OTHER;
        }
        let is_it = |name: &OnceLock<Box<str>>| **name.get_or_init(|| version.into()) == *version;
        self.0.iter().position(is_it).unwrap_or(OTHER)
    }

    /// The versions that have a number, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map_while(|name| Some(&**name.get()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_keeps_its_number() {
        let versions = Versions::default();
        let numbers = [None, Some("v1"), Some("v2"), Some("v1"), Some("")];
        let numbers = numbers.map(|version| versions.number(version));
        assert_eq!(numbers, [0, 2, 3, 2, 0]);
        assert_eq!(
            versions.names().collect::<Vec<_>>(),
            ["", "other", "v1", "v2"]
        );
    }

    #[test]
    fn what_is_too_much_shares_a_number() {
        let versions = Versions::default();
        assert_eq!(versions.number(Some(&"v".repeat(65))), OTHER);
        let numbers: Vec<_> = (0..100)
            .map(|n| versions.number(Some(&format!("v{n}"))))
            .collect();
        assert_eq!(numbers[..32], (2..34).collect::<Vec<_>>());
        assert!(numbers[32..].iter().all(|number| *number == OTHER));
        assert_eq!(versions.number(Some("v31")), 33);
        assert_eq!(versions.number(Some("other")), OTHER, "no series twice");
    }
}
