//! Request bodies that the gateway holds for a retry.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt;
use service_runtime::descriptors::raise_limit;
use testing::etcd::Etcd;
use testing::try_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::Verdict;
use crate::system::System;

/// Requests at a time, just below what the gateway takes.
const REQUESTS: usize = 4000;

/// The largest body that is held.
const BODY_BYTES: usize = 64 << 10;

/// What the gateway may need at most, in MiB.
const MEMORY: f64 = 256.0;

/// Whatever its clients send to a node that does not respond, the gateway's memory has a limit.
pub(crate) async fn held_bodies() -> anyhow::Result<Verdict> {
    raise_limit()?;
    let flags = [
        "--timeout",
        "2m",
        "--hedge-after",
        "2m",
        "--connect-timeout",
        "30s",
        "--probe-path",
        "off",
    ];
    let system = System::around(Etcd::start().await, &[], &flags).await?;
    let received = Rc::new(Cell::new(0));
    let listener = listen()?;
    let node = listener.local_addr()?;
    let taking = rt::spawn(take(listener, received.clone()));
    system.put_node(&node.to_string()).await;
    system.until_known(1).await?;
    let mut clients = JoinSet::new();
    for _ in 0..REQUESTS {
        clients.spawn_local(put(system.gateway.address));
    }
    let expected = (REQUESTS * BODY_BYTES) as u64;
    let all_taken = || async { Ok(received.get() >= expected) };
    try_until("all bodies at the node", Duration::from_secs(90), all_taken).await?;
    let usage = system.usage()?;
    taking.abort();
    Ok(Verdict::new(usage.peak <= MEMORY)
        .note(format!("{REQUESTS} bodies of {} KiB", BODY_BYTES >> 10))
        .note(format!("{:.0} MiB at most", usage.peak)))
}

/// A listener whose backlog has room for all requests at once.
fn listen() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(REQUESTS as u32)
}

/// Reads from each connection without end, and counts the bytes, those of heads included.
async fn take(listener: TcpListener, received: Rc<Cell<u64>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        let received = received.clone();
        connections.spawn_local(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
                received.set(received.get() + bytes as u64);
            }
        });
    }
}

/// Sends a request, and waits for a response.
async fn put(gateway: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(gateway).await?;
    let head =
        format!("PUT /greeter/x HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&vec![b'x'; BODY_BYTES]).await?;
    stream.read_u8().await.map(drop)
}
