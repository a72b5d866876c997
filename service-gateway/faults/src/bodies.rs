//! Bodies: large, broken, both ways at once, or nobody's any more.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use testing::http::{Upstream, Wire, answers, is_echoed};
use testing::try_until;
use testing::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Verdict;
use crate::system::System;

const SECOND: Duration = Duration::from_secs(1);

const MIB: usize = 1 << 20;

/// No answer whose node died over it looks like a whole one.
pub(crate) async fn cut_body() -> anyhow::Result<Verdict> {
    let cut_off = answers::cut_off();
    let count = cut_off.len();
    let node = Upstream::answering_by_number(cut_off.into()).await;
    let routes = "/odd=greeter?version=odd,/=greeter?version=v1";
    let mut system = System::routing(routes, &["v1"; 3], &[(&node, "odd")]).await?;
    let mut cut = Vec::new();
    for n in 0..count {
        cut.push(system.connect().await.get(&format!("/odd/{n}")).await);
    }
    let mut downloads = Vec::new();
    for target in ["/bytes/1000000000", "/stream?n=100000&ms=1"].repeat(15) {
        let mut client = system.connect().await;
        client
            .send(format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n"))
            .await;
        until("a beginning", async || client.has_answer()).await;
        downloads.push(client);
    }
    system.greeters.clear(); // kill -9
    for client in &mut downloads {
        cut.push(client.answer("GET").await);
    }
    let whole = cut.iter().filter(|answer| answer.whole).count();
    let others = cut.iter().filter(|answer| answer.status() != 200).count();
    Ok(Verdict::new(whole + others == 0).note(format!(
        "{} answers cut off, {} of them by kill -9; {whole} look whole",
        cut.len(),
        downloads.len()
    )))
}

/// How many clients leave in each way.
const LEAVERS: usize = 20;

/// An answer that comes during the upload arrives, and a node is soon rid of a client that left.
pub(crate) async fn early_answer() -> anyhow::Result<Verdict> {
    let node = impatient().await;
    let system = System::routing("/=greeter", &[], &[(&node, "v1")]).await?;
    let before = system.usage()?.descriptors;
    let mut refused = 0;
    for framing in ["content-length: 104857600", "transfer-encoding: chunked"].repeat(5) {
        let mut client = system.connect().await;
        begin(&mut client, &format!("POST /refused HTTP/1.1\r\n{framing}")).await;
        let piece = format!("10000\r\n{}\r\n", "x".repeat(65536));
        let sent = client.send_until_answered(&piece, 100 * MIB).await;
        let answer = client.answer("POST").await;
        refused += usize::from(answer.status() == 413 && answer.whole && sent < 100 * MIB);
    }
    node.has_open(0).await;
    let mut leavers = Vec::new();
    for head in [
        "POST /taken HTTP/1.1\r\ncontent-length: 104857600",
        "POST /taken HTTP/1.1\r\ntransfer-encoding: chunked",
        "GET /paused HTTP/1.1",
        "GET /given HTTP/1.1",
    ]
    .repeat(LEAVERS)
    {
        let mut client = system.connect().await;
        begin(&mut client, head).await;
        if head.starts_with("POST") {
            client
                .send(format!("1000\r\n{}\r\n", "x".repeat(4096)))
                .await;
        } else {
            until("a beginning", async || client.has_answer()).await;
        }
        leavers.push(client);
    }
    node.has_open(leavers.len()).await;
    let (count, left) = (leavers.len(), Instant::now());
    drop(leavers);
    node.has_open(0).await;
    let took = left.elapsed();
    let freed = || async { Ok(system.usage()?.descriptors <= before) };
    try_until("the gateway's descriptors to be freed", SECOND * 10, freed).await?;
    Ok(Verdict::new(refused == 10 && took <= SECOND)
        .note(format!("{refused} of 10 uploads got their 413"))
        .note(format!(
            "{count} clients left, the last node connection ended after {} ms",
            took.as_millis()
        ))
        .note(format!("{before} descriptors before and after")))
}

async fn begin(client: &mut Wire, head: &str) {
    client.send(format!("{head}\r\nhost: test\r\n\r\n")).await;
}

/// A node that does as the path says.
async fn impatient() -> Upstream {
    const TOO_LARGE: &str =
        "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    Upstream::new(|mut peer| async move {
        let Ok(head) = peer.head().await else { return };
        match head.start.split(' ').nth(1) {
            Some("/refused") => {
                let _ = peer.bytes(1000).await;
                let _ = peer.try_send(TOO_LARGE).await;
            }
            Some("/given") => {
                let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let piece = format!("10000\r\n{}\r\n", "x".repeat(65536));
                let mut sent = peer.try_send(chunked).await;
                while sent.is_ok() {
                    sent = peer.try_send(&piece).await;
                }
            }
            Some("/paused") => {
                let part = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart";
                let _ = peer.try_send(part).await;
                peer.rest().await;
            }
            _ => drop(peer.rest().await),
        }
    })
    .await
}

/// Sixteen megabytes come back while they are being sent, four times at once.
pub(crate) async fn full_duplex() -> anyhow::Result<Verdict> {
    let system = System::routing("/=greeter", &["v1"], &[]).await?;
    let began = Instant::now();
    let echoes = [false, true, false, true].map(async |in_chunks| {
        is_echoed(system.connect().await, "/echo", 16 * MIB, in_chunks).await;
    });
    let count = join_all(echoes).await.len();
    Ok(Verdict::new(true).note(format!(
        "{count} × 16 MiB came back in {:.1} s",
        began.elapsed().as_secs_f64()
    )))
}

/// A gigabyte each way leaves no trace in the gateway's memory.
pub(crate) async fn big() -> anyhow::Result<Verdict> {
    let system = System::routing("/=greeter", &["v1"], &[]).await?;
    download(system.connect().await, MIB).await?;
    upload(system.connect().await, MIB).await?;
    let before = system.usage()?;
    let (down, up) = (
        download(system.connect().await, 1024 * MIB).await?,
        upload(system.connect().await, 1024 * MIB).await?,
    );
    let grown = system.usage()?.peak - before.memory;
    Ok(Verdict::new(grown < 16.0)
        .note(format!(
            "1 GiB down in {:.1} s, up in {:.1} s",
            down.as_secs_f64(),
            up.as_secs_f64()
        ))
        .note(format!(
            "RSS {:.1} MiB before, at most {:.1} MiB more",
            before.memory, grown
        )))
}

async fn download(mut client: Wire, size: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    begin(&mut client, &format!("GET /bytes/{size} HTTP/1.1")).await;
    let head = client.head().await;
    let length = head
        .ok()
        .and_then(|h| h.header("content-length").map(str::to_owned));
    ensure!(length == Some(size.to_string()), "a length of {length:?}");
    let (mut got, mut piece) = (client.received.len(), vec![0; MIB]);
    while got < size {
        let count = client.stream.read(&mut piece).await?;
        ensure!(count > 0, "it ended after {got} bytes");
        ensure!(piece[0] == b'a' + (got % 26) as u8, "other bytes at {got}");
        got += count;
    }
    Ok(began.elapsed())
}

async fn upload(mut client: Wire, size: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let head = format!("POST /anything HTTP/1.1\r\ncontent-length: {size}");
    begin(&mut client, &head).await;
    let piece = vec![b'x'; MIB];
    for _ in 0..size / MIB {
        client.stream.write_all(&piece).await?;
    }
    let answer = client.answer("POST").await;
    ensure!(answer.status() == 200, "{answer:?}");
    ensure!(answer.json()["body_bytes"] == size, "{answer:?}");
    Ok(began.elapsed())
}
