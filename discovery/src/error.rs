//! The one error of the library, for parsing, registries and resolving.
//!
//! The invariant: a cause is reported once, in the message or as `source`, and a text from outside is
//! shortened.

use std::time::Duration;

use crate::{ServiceName, Tags};

/// An error of parsing, of a registry, or of resolving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid text: a name, a tag, an address, a URL, a value in the registry.
    #[error("{what} {value:?}: {reason}")]
    Invalid {
        /// Kind of text.
        what: &'static str,
        /// The text, shortened.
        value: String,
        /// The fault, or the valid form.
        reason: String,
    },

    /// A request to the registry failed. The source is the back end's error, if there is one.
    #[error("registry: {message}")]
    Registry {
        /// The request and its failure.
        message: String,
        /// The back end's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// There is no initial snapshot of the service yet, so its nodes are unknown.
    #[error("no snapshot of {service} from the registry within {waited:?}")]
    NotReady {
        /// The requested service.
        service: ServiceName,
        /// Time that the caller waited.
        waited: Duration,
    },

    /// The service is known and has no matching node.
    #[error("no instance of {service}{}", if tags.is_empty() { String::new() } else { format!(" with {tags}") })]
    NoInstance {
        /// The requested service.
        service: ServiceName,
        /// The requested tags.
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

    /// Creates an [`Error::Registry`] without a source.
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
    fn a_long_text_is_shortened() {
        let message = |text: &str| Error::invalid("tag", text, "too long").to_string();
        let [fits, long] = ["x".repeat(80), "x".repeat(81)];
        assert_eq!(message(&fits), format!("tag {fits:?}: too long"));
        assert_eq!(message(&long), format!("tag \"{fits}…\": too long"));
    }
}
