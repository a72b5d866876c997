use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::started::within_limit;

/// A connection for those who care about every byte.
pub(crate) struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// What arrived up to and with `end`; the rest stays for the next call.
    pub(crate) async fn read_to(&mut self, end: &str) -> String {
        let length = within_limit(end, async {
            loop {
                let text = String::from_utf8_lossy(&self.received).into_owned();
                if let Some(start) = text.find(end) {
                    return start + end.len();
                }
                let read = self.stream.read_buf(&mut self.received).await.unwrap();
                assert_ne!(read, 0, "closed after {text:?}");
            }
        })
        .await;
        String::from_utf8(self.received.drain(..length).collect()).unwrap()
    }

    /// What arrives until the other side closes.
    pub(crate) async fn read_to_close(&mut self) -> String {
        let closing = self.stream.read_to_end(&mut self.received);
        within_limit("the connection's end", closing).await.unwrap();
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    pub(crate) fn split(
        self,
    ) -> (
        tokio::net::tcp::OwnedReadHalf,
        tokio::net::tcp::OwnedWriteHalf,
    ) {
        self.stream.into_split()
    }
}
