//! What is asked for.

use std::fs;
use std::path::PathBuf;

use testing::Directory;

/// One kind of load.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) connections: usize,
    /// Bytes that each request sends.
    upload: usize,
}

pub(crate) fn all() -> [Workload; 6] {
    let get = |name, path, connections| Workload {
        name,
        path,
        connections,
        upload: 0,
    };
    [
        get("small answer, 16 connections", "/greeter/greet/Ada", 16),
        get("small answer, 64 connections", "/greeter/greet/Ada", 64),
        get("small answer, 256 connections", "/greeter/greet/Ada", 256),
        get("64 KiB answer, 32 connections", "/greeter/bytes/65536", 32),
        get("10 MiB answer, 4 connections", "/greeter/bytes/10485760", 4),
        Workload {
            name: "10 MiB upload, 4 connections",
            path: "/greeter/anything",
            connections: 4,
            upload: 10 << 20,
        },
    ]
}

impl Workload {
    /// What wrk has to be told in Lua, if anything.
    pub(crate) fn script(&self, directory: &Directory) -> std::io::Result<Option<PathBuf>> {
        if self.upload == 0 {
            return Ok(None);
        }
        let file = directory.file("upload.lua");
        fs::write(
            &file,
            format!(
                "wrk.method = 'POST'\nwrk.body = string.rep('x', {})\n",
                self.upload
            ),
        )?;
        Ok(Some(file))
    }
}
