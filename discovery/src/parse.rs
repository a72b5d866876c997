//! The error of a text that cannot be parsed: a name, tags, an address range, a URL, a value in the registry.
//!
//! Apart from [`Error`](crate::Error), which contains names and tags, so that the values depend on no
//! other module. The invariant: the text in an error is shortened.

/// An invalid text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {reason}")]
#[non_exhaustive]
pub struct ParseError {
    /// Kind of text.
    pub what: &'static str,
    /// The text, shortened.
    pub value: String,
    /// The fault, or the valid form.
    pub reason: String,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, value: &str, reason: impl Into<String>) -> Self {
        let mut shortened: String = value.chars().take(80).collect();
        if shortened.len() < value.len() {
            shortened.push('…');
        }
        Self {
            what,
            value: shortened,
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shortened() {
        let message = |text: &str| ParseError::new("tag", text, "too long").to_string();
        let [fits, long] = ["x".repeat(80), "x".repeat(81)];
        assert_eq!(message(&fits), format!("tag {fits:?}: too long"));
        assert_eq!(message(&long), format!("tag \"{fits}…\": too long"));
    }
}
