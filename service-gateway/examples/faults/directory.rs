//! A directory that goes with its owner.

use std::path::PathBuf;

pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> std::io::Result<Self> {
        let name = format!("faults-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // litter is no reason to fail
    }
}
