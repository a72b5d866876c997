//! Files that a registry URL names: passwords, tokens, certificates and keys.

use std::fs;
use std::path::Path;

use crate::Error;

/// Reads a file. Such files are small and local, so blocking is acceptable.
pub(super) fn read(file: &Path) -> Result<String, Error> {
    let failed = |error| Error::registry(format!("cannot read {}: {error}", file.display()));
    fs::read_to_string(file).map_err(failed)
}
