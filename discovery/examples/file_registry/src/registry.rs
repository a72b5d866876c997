// A registry in a directory: a node is a file, registered as long as its process holds a lock on it.
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::{future::ready, io, sync::Arc, time::Duration};

use discovery::*;
use futures_util::stream::{StreamExt, repeat};
use tokio::time::sleep;

const TICK: Duration = Duration::from_millis(50);

/// Its directory, which need not exist.
#[derive(Debug)]
pub struct FileRegistry(pub PathBuf);

impl NodeRegistry for FileRegistry {
    fn register(&self, node: ServiceNode, _ttl: Duration) -> Registration {
        let draft = self.0.join(format!("{:x}", fastrand::u64(..)));
        let listed = self.0.join(format!("{}/{}", node.service, node.address));
        Registration::start(node.clone(), Entry(draft, listed, node))
    }

    fn watch(&self, service: &ServiceName) -> SnapshotStream {
        let directory = self.0.join(service.as_str());
        let (mut known, mut revision) = (None, 1);
        let lists = repeat(()).then(|()| sleep(TICK)).filter_map(move |()| {
            let list = list(&directory, revision);
            let nodes = list.as_ref().ok().map(|list| list.nodes().to_vec());
            let news = nodes.is_none() || nodes != known;
            (known, revision) = (nodes, revision + u64::from(news));
            ready(news.then_some(list.map_err(failed)))
        });
        lists.boxed()
    }
}

fn list(directory: &Path, revision: u64) -> io::Result<Snapshot> {
    fs::create_dir_all(directory)?;
    let mut nodes = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = File::open(entry?.path())?;
        if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
            let json = io::read_to_string(file)?;
            nodes.extend(ServiceNode::from_json(json.as_bytes()).map(Arc::new));
        }
    }
    Ok(Snapshot::new(nodes, revision))
}

/// Temporary path, path of the entry, and the node.
struct Entry(PathBuf, PathBuf, ServiceNode);

fn write(Entry(draft, listed, node): &Entry) -> io::Result<File> {
    fs::create_dir_all(listed.with_file_name(""))?;
    fs::write(draft, node.to_json())?;
    let file = File::open(draft)?;
    file.lock()?;
    fs::rename(draft, listed)?; // atomic: replaces the entry of another owner, never half-written
    Ok(file)
}

impl Registrar for Entry {
    async fn maintain(&mut self, status: &RegistrationStatus) -> Error {
        let _lock = match write(self) {
            Ok(file) => file, // the system unlocks it when the process ends, however it ends
            Err(error) => return failed(error),
        };
        status.set_registered();
        while self.1.exists() {
            sleep(TICK).await;
        }
        Error::registry("the file was removed")
    }

    async fn deregister(self) -> Result<(), Error> {
        Ok(()) // it is unlocked already; the file stays, since it may have a new owner
    }
}

fn failed(error: io::Error) -> Error {
    Error::registry(error.to_string())
}
