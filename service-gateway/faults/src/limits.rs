//! More than the gateway can do, and clients that are slower than they may be.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use awc::http::Method;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use testing::etcd::Etcd;
use testing::try_until;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, timeout};

use crate::Verdict;
use crate::running::Running;
use crate::system::System;

const SECOND: Duration = Duration::from_secs(1);

/// What the gateway may need at most, in MiB.
const MEMORY: f64 = 256.0;

/// With 8 requests in flight that take 100 ms each, 80 a second are all it can do. Of five times
/// as many it refuses the others at once, and those it takes are hardly slower.
pub(crate) async fn overload() -> anyhow::Result<Verdict> {
    let flags = ["--max-in-flight", "8"];
    let system = System::around(Etcd::start().await, &["v1"; 3], &flags).await?;
    system.until_known(3).await?;
    let load = |rate| system.load(rate, Method::GET, "/slow?ms=100");
    let calm = Running::begin(load(16));
    sleep(SECOND * 5).await;
    let calm = calm.end().await?;
    let busy = Running::begin(load(400));
    sleep(SECOND * 10).await;
    let busy = busy.end().await?;
    let others = busy
        .failures()
        .filter(|failure| !failure.contains("\"overloaded\""));
    let others: Vec<_> = others.collect();
    others
        .iter()
        .for_each(|failure| eprintln!("  failed: {failure}"));
    let [before, during] = [&calm, &busy].map(|tally| tally.percentile(99.0, true));
    let [median, refused] = [50.0, 99.0].map(|percent| busy.percentile(percent, false));
    let memory = system.usage()?.peak;
    let held = others.is_empty()
        && calm.failed() == 0
        && busy.answered() >= 10 * 80 / 2
        && during <= before * 2.0
        && refused <= before
        && memory <= MEMORY;
    Ok(Verdict::new(held)
        .note(format!(
            "{} answered, {} refused",
            busy.answered(),
            busy.failed()
        ))
        .note(format!(
            "answers: p99 {during:.0} ms, {before:.0} ms without"
        ))
        .note(format!("refusals: p50 {median:.1} ms, p99 {refused:.1} ms"))
        .note(format!("{memory:.0} MiB at most")))
}

/// How a client is slow.
#[derive(Clone, Copy)]
enum Slow {
    Head,
    Body,
    Reader,
}

const SLOW_CLIENTS: usize = 2000;

/// So many of them come in a second.
const COMING: u32 = 400;

/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// 2000 slow clients are dropped in 15 s, and hardly felt by the others.
pub(crate) async fn slow_clients() -> anyhow::Result<Verdict> {
    let system = System::start(&["v1"; 3]).await?;
    let good = system.gets(200);
    sleep(SECOND * 15).await;
    let before = good.end().await?;
    let (good, address) = (system.gets(200), system.gateway.address);
    let attack = actix_web::web::block(move || attack(address));
    let there =
        || async { Ok(system.metric("gateway_connections").await? as usize >= SLOW_CLIENTS) };
    try_until("slow clients", SECOND * 10, there).await?;
    let dropped = attack.await?;
    let during = good.end().await?;
    let slowest = dropped.iter().max().copied().unwrap_or_default();
    let [calm, busy] = [&before, &during].map(|tally| tally.percentile(99.0, true));
    let memory = system.usage()?.peak;
    let held = before.failed() + during.failed() == 0
        && dropped.len() == SLOW_CLIENTS
        && slowest <= SECOND * 15
        && busy <= calm.max(FAST) * 2.0;
    Ok(Verdict::new(held)
        .counted(&during)
        .note(format!(
            "{} of {SLOW_CLIENTS} slow clients dropped, after {:.1} s at most",
            dropped.len(),
            slowest.as_secs_f64()
        ))
        .note(format!(
            "p99 of the others {busy:.1} ms, {calm:.1} ms without"
        ))
        .note(format!("{memory:.0} MiB at most")))
}

/// A p99 below this is not told from noise, in milliseconds.
const FAST: f64 = 5.0;

/// Slow clients of all kinds, on the thread that calls this. Returns after how long each was dropped.
fn attack(address: SocketAddr) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let clients = async {
        let slow = [Slow::Head, Slow::Body, Slow::Reader].into_iter().cycle();
        let clients = slow.take(SLOW_CLIENTS).zip(0..);
        let clients = clients.map(|(slow, number)| async move {
            sleep(SECOND * number / COMING).await;
            timeout(PATIENCE, client(address, slow)).await
        });
        let clients: FuturesUnordered<_> = clients.collect();
        let ended: Vec<_> = clients.collect().await;
        ended.into_iter().flatten().flatten().collect()
    };
    runtime.map_or_else(|_| Vec::new(), |runtime| runtime.block_on(clients))
}

/// One slow client, that sends a byte a second. Returns after how long that was not taken any more.
async fn client(address: SocketAddr, slow: Slow) -> std::io::Result<Duration> {
    let mut stream = connect(address).await?;
    let begin = match slow {
        Slow::Head => "GET /greeter/greet/Ada HTTP/1.1\r\nx-slow: ",
        Slow::Body => "POST /greeter/echo HTTP/1.1\r\nhost: slow\r\ncontent-length: 100000\r\n\r\n",
        Slow::Reader => "GET /greeter/bytes/10000000 HTTP/1.1\r\nhost: slow\r\n\r\n",
    };
    let began = Instant::now();
    stream.write_all(begin.as_bytes()).await?;
    let mut seconds = interval(SECOND);
    while stream.write_all(b"x").await.is_ok() {
        seconds.tick().await;
    }
    Ok(began.elapsed())
}

/// With a small window, so that whoever is not read notices soon.
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(address).await
}
