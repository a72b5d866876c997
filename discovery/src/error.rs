//! The one error of the library, for parsing, registries and resolving.
//!
//! The invariant: a cause is reported once, in the message or as `source`.

use std::time::Duration;

use crate::{ParseError, ServiceName, Tags};

/// An error of parsing, of a registry, or of resolving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid text: a name, a tag, an address, a URL, a value in the registry.
    #[error(transparent)]
    Invalid(#[from] ParseError),

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
    /// Creates an [`Error::Registry`] without a source.
    pub fn registry(message: impl Into<String>) -> Self {
        Self::Registry {
            message: message.into(),
            source: None,
        }
    }
}
