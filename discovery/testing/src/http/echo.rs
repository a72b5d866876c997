use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Wire;
use crate::within_limit;

/// The size of one chunk.
const CHUNK_BYTES: usize = 65536;

/// Sends `size` bytes, and checks that they come back while they are being sent.
pub async fn is_echoed(mut client: Wire, target: &str, size: usize, in_chunks: bool) {
    let (framing, frame) = if in_chunks {
        let chunked = "transfer-encoding: chunked".to_owned();
        (chunked, ["10000\r\n", "\r\n"])
    } else {
        (format!("content-length: {size}"), ["", ""])
    };
    client
        .send(format!(
            "POST {target} HTTP/1.1\r\nhost: test\r\n{framing}\r\n\r\n"
        ))
        .await;
    let content = |n: usize| format!("{n:08}").repeat(CHUNK_BYTES / 8);
    let chunk = |n: usize| format!("{}{}{}", frame[0], content(n), frame[1]);
    // The first chunk comes back before the second one is sent.
    client.send(chunk(0)).await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    let mut got = client.chunk().await.unwrap().unwrap();

    let (mut reader, mut writer) = client.stream.split();
    let sending = async {
        for n in 1..size / CHUNK_BYTES {
            writer.write_all(chunk(n).as_bytes()).await.unwrap();
        }
        if in_chunks {
            writer.write_all(b"0\r\n\r\n").await.unwrap();
        }
    };
    let mut raw = std::mem::take(&mut client.received);
    let reading = async {
        while !raw.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(reader.read_buf(&mut raw).await.unwrap(), 0);
        }
    };
    within_limit("the echo", async { tokio::join!(sending, reading) }).await;
    unchunk(&raw, &mut got);
    let sent: String = (0..size / CHUNK_BYTES).map(content).collect();
    assert!(got == sent.into_bytes());
}

/// Appends the content of complete chunks.
fn unchunk(mut raw: &[u8], content: &mut Vec<u8>) {
    loop {
        let end = raw.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = std::str::from_utf8(&raw[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        content.extend(&raw[end + 2..][..size]);
        raw = &raw[end + 2 + size + 2..];
        if size == 0 {
            return assert!(raw.is_empty());
        }
    }
}
