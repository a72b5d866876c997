use std::path::{Path, PathBuf};
use std::{fs, io};

/// An empty directory, removed with all its files on drop.
pub struct Directory(PathBuf);

impl Directory {
    /// Creates one among the system's temporary files.
    pub fn new() -> io::Result<Self> {
        let name = format!("discovery-{}-{:x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of a file in it, which need not exist.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // litter is no reason to panic while panicking
    }
}
