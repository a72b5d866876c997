use std::fs;
use std::path::Path;

use crate::Error;

/// What is in a file that a URL names. Such files are small and local.
pub(super) fn read(file: &Path) -> Result<String, Error> {
    let failed = |error| Error::registry(format!("cannot read {}: {error}", file.display()));
    fs::read_to_string(file).map_err(failed)
}
