use std::future::ready;
use std::io;
use std::iter::once;

use actix_http::body::{BodyStream, BoxBody};
use actix_http::ws::{self, CloseCode, Codec, Frame, Message, ProtocolError};
use actix_web::web::{Bytes, BytesMut, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::io::StreamReader;

use crate::problem::Problem;
use crate::state::State;

/// The largest frame taken.
const FRAME_LIMIT: usize = 1 << 20;

/// A WebSocket ([RFC 6455](https://www.rfc-editor.org/rfc/rfc6455)) that sends every message back,
/// and says goodbye when this instance begins to leave: clients connect elsewhere.
pub(crate) async fn echo(
    request: HttpRequest,
    body: Payload,
    state: Data<State>,
) -> Result<HttpResponse, Problem> {
    let mut accepted = ws::handshake(request.head()).map_err(Problem::bad_request)?;
    let received = StreamReader::new(body.map_err(io::Error::other));
    let frames = FramedRead::new(received, Codec::new().max_size(FRAME_LIMIT));
    let answers = frames
        .map(|frame| frame.map_or(close(CloseCode::Protocol), reply))
        .take_until(state.draining.clone().cancelled_owned())
        .chain(stream::once(ready(close(CloseCode::Away))));
    let body = BoxBody::new(BodyStream::new(encoded(answers)));
    Ok(accepted.body(body).map_into_boxed_body().into())
}

fn reply(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => text
            .try_into()
            .map_or(close(CloseCode::Invalid), Message::Text),
        Frame::Binary(bytes) => Message::Binary(bytes),
        Frame::Continuation(part) => Message::Continuation(part),
        Frame::Ping(bytes) => Message::Pong(bytes),
        Frame::Pong(_) => Message::Nop,
        Frame::Close(reason) => Message::Close(reason),
    }
}

fn close(code: CloseCode) -> Message {
    Message::Close(Some(code.into()))
}

/// Ends with the first goodbye, without waiting for what may come after it.
fn encoded(
    messages: impl Stream<Item = Message>,
) -> impl Stream<Item = Result<Bytes, ProtocolError>> {
    let mut codec = Codec::new();
    let until_goodbye = messages.flat_map(|message| {
        let end = matches!(message, Message::Close(_)).then_some(None);
        stream::iter(once(Some(message)).chain(end))
    });
    until_goodbye
        .scan((), |(), message| ready(message))
        .map(move |message| {
            let mut bytes = BytesMut::new();
            codec.encode(message, &mut bytes).map(|()| bytes.freeze())
        })
}
