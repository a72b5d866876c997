use std::time::Duration;

use crate::{ServiceName, Tags};

/// What can go wrong between a caller and the nodes it looks for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is not what it should be: a name, a tag, an address, a URL, a value in the registry.
    #[error("{what} {value:?}: {reason}")]
    Invalid {
        /// What the text was meant to be.
        what: &'static str,
        /// The text, shortened.
        value: String,
        /// What is wrong with it, or what is allowed.
        reason: String,
    },

    /// The registry did not do what was asked. The cause is the backend's own error, where there is one.
    #[error("registry: {message}")]
    Registry {
        /// What was asked, and what came back.
        message: String,
        /// The backend's own error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// The registry has answered nothing about this service yet, so nobody knows its nodes.
    #[error("no list of {service} from the registry within {waited:?}")]
    NotReady {
        /// The service asked for.
        service: ServiceName,
        /// How long the caller waited.
        waited: Duration,
    },

    /// The service is known and has no node that fits.
    #[error("no instance of {service}{}", if tags.is_empty() { String::new() } else { format!(" with {tags}") })]
    NoInstance {
        /// The service asked for.
        service: ServiceName,
        /// The tags asked for.
        tags: Tags,
    },
}

impl Error {
    pub(crate) fn invalid(what: &'static str, value: &str, reason: impl Into<String>) -> Self {
        let mut shortened: String = value.chars().take(80).collect();
        if shortened.len() < value.len() {
            shortened.push('…');
        }
        Self::Invalid {
            what,
            value: shortened,
            reason: reason.into(),
        }
    }

    /// What a registry did not do, in words: for registries that have no error of their own to tell.
    pub fn registry(message: impl Into<String>) -> Self {
        Self::Registry {
            message: message.into(),
            source: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_told_in_short() {
        let told = |text: &str| Error::invalid("tag", text, "too long").to_string();
        let [fits, long] = ["x".repeat(80), "x".repeat(81)];
        assert_eq!(told(&fits), format!("tag {fits:?}: too long"));
        assert_eq!(told(&long), format!("tag \"{fits}…\": too long"));
    }
}
