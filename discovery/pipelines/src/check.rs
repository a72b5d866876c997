//! The check of the responses on one connection.

use tokio::io::AsyncRead;

use crate::exchange::{Exchange, Treatment};
use crate::failure::{Fault, FaultKind};
use crate::message::{Framing, Head, ReadError, Reader};
use crate::pipeline::Pipeline;

/// The state of the connection behind the last response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    /// It takes further requests.
    Open,
    /// The server has ended it.
    Ended,
    /// It has switched protocols.
    Switched,
}

/// Reads the responses of a connection and compares them with a pipeline.
pub(crate) struct Checker<'a, S> {
    pipeline: &'a Pipeline,
    pub(crate) reader: Reader<S>,
    /// The number of responses that were right.
    pub(crate) responses: usize,
}

impl<'a, S: AsyncRead + Unpin> Checker<'a, S> {
    pub(crate) fn new(pipeline: &'a Pipeline, stream: S) -> Self {
        Self {
            pipeline,
            reader: Reader::new(stream),
            responses: 0,
        }
    }

    /// Reads the responses to all requests, or those up to the end of the connection.
    ///
    /// # Errors
    /// With the first response that is not right.
    pub(crate) async fn responses(&mut self) -> Result<State, Fault> {
        for exchange in &self.pipeline.exchanges {
            let state = self.response(exchange).await?;
            self.responses += 1;
            match state {
                State::Open => {}
                State::Ended => {
                    self.end().await?;
                    return Ok(state);
                }
                State::Switched => return Ok(state),
            }
        }
        Ok(State::Open)
    }

    /// Waits for the end of the connection, with nothing in front of it.
    pub(crate) async fn end(&mut self) -> Result<(), Fault> {
        let rest = self.reader.rest().await;
        if rest.is_empty() {
            return Ok(());
        }
        let kind = if rest.starts_with(b"HTTP/1.") {
            FaultKind::ProcessedAfterClose
        } else {
            FaultKind::WrongData
        };
        kind.because("bytes behind the last response")
    }

    async fn response(&mut self, exchange: &Exchange) -> Result<State, Fault> {
        let head = self.final_head(exchange).await?;
        let status = status(&head)?;
        let has_id = head
            .values(self.pipeline.id_field)
            .any(|id| id == exchange.id);
        match exchange.treatment {
            Treatment::Served => self.served(exchange, &head, status).await,
            Treatment::ServedOrRefused if has_id => self.served(exchange, &head, status).await,
            // A node without such a page has served it.
            _ if status < 400 || status == 404 => {
                FaultKind::AcceptedJunk.because("a request that has to be refused")
            }
            _ => self.refused(&head, status).await,
        }
    }

    /// Reads heads up to the final one.
    async fn final_head(&mut self, exchange: &Exchange) -> Result<Head, Fault> {
        let may_continue = exchange.expects_continue && !exchange.is_http10;
        loop {
            let head = self.reader.head().await.map_err(fault)?;
            if status(&head)? != 100 {
                return Ok(head);
            }
            if !may_continue {
                return FaultKind::WrongData.because("100 to a request that does not expect it");
            }
        }
    }

    async fn served(
        &mut self,
        exchange: &Exchange,
        head: &Head,
        status: u16,
    ) -> Result<State, Fault> {
        if head.value(self.pipeline.id_field) != Some(&exchange.id) {
            return FaultKind::WrongData.because("not the id of the request");
        }
        if status == 101 && exchange.is_upgrade {
            return Ok(State::Switched);
        }
        if status != exchange.status {
            return FaultKind::WrongData.because("another status");
        }
        let framing = head.framing().map_err(fault)?;
        if framing == Framing::Chunked && exchange.is_http10 {
            return FaultKind::WrongData.because("chunks to HTTP/1.0");
        }
        let has_content = exchange.method != "HEAD" && ![204, 304].contains(&status);
        if status == 204 && framing != Framing::Unframed {
            return FaultKind::WrongData.because("a body framing in 204");
        }
        let ends_body = has_content && framing == Framing::Unframed;
        if has_content {
            let body = self.body(framing).await?;
            if ends_body && exchange.content.is_cut(&body) {
                return FaultKind::LostResponse.because("the end of the body");
            }
            if !exchange.content.matches(&body) {
                return FaultKind::WrongData.because("another body");
            }
        }
        let announces_close = head.lists("connection", "close");
        let is_http10 = exchange.is_http10 || head.start.starts_with("HTTP/1.0");
        let keeps = if is_http10 {
            head.lists("connection", "keep-alive")
        } else {
            !announces_close
        };
        match (exchange.closes, keeps && !ends_body) {
            (true, true) => FaultKind::NotClosed.because("no connection: close in the response"),
            (true, false) => Ok(State::Ended),
            (false, true) => Ok(State::Open),
            (false, false) if exchange.may_close => Ok(State::Ended),
            (false, false) => FaultKind::NeedlessClose.because("a close without a reason"),
        }
    }

    async fn refused(&mut self, head: &Head, status: u16) -> Result<State, Fault> {
        if ![400, 411, 413, 414, 417, 431, 501, 505].contains(&status) {
            return FaultKind::WrongData.because("another status for junk");
        }
        let framing = head.framing().map_err(fault)?;
        self.body(framing).await?;
        if !head.lists("connection", "close") && !head.start.starts_with("HTTP/1.0") {
            return FaultKind::NotClosed.because("no connection: close in a refusal");
        }
        Ok(State::Ended)
    }

    async fn body(&mut self, framing: Framing) -> Result<Vec<u8>, Fault> {
        match framing {
            Framing::Unframed => {
                let rest = self.reader.rest().await;
                if self.reader.is_reset {
                    FaultKind::LostResponse.because("a reset within the body")
                } else {
                    Ok(rest)
                }
            }
            Framing::Sized(length) => self.reader.sized(length).await.map_err(fault),
            Framing::Chunked => self.reader.chunked().await.map_err(fault),
        }
    }
}

fn status(head: &Head) -> Result<u16, Fault> {
    let line = head.start.strip_prefix("HTTP/1.1 ");
    let line = line.or_else(|| head.start.strip_prefix("HTTP/1.0 "));
    let code = line.and_then(|line| line.get(..3)?.parse().ok());
    code.map_or_else(|| FaultKind::WrongData.because("no status line"), Ok)
}

fn fault(error: ReadError) -> Fault {
    let (kind, detail) = match error {
        ReadError::Ended => (FaultKind::LostResponse, "the connection ended".to_owned()),
        ReadError::Invalid(detail) => (FaultKind::WrongData, detail),
    };
    Fault { kind, detail }
}
