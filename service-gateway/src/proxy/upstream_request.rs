use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use actix_web::http::uri::PathAndQuery;
use bytes::BytesMut;
use discovery::Endpoint;
use upstream::{Request, RequestBody, RequestInfo};

use super::fields;
use super::forwarded;
use super::headers;
use super::target;
use super::trace::Ids;
use crate::client::Client;

/// Most heads need no more room, in bytes.
const HEAD_BYTES: usize = 1 << 10;

/// A client's request, as it goes to nodes.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) request: &'a HttpRequest,
    /// Whose connection it came over.
    pub(super) client: &'a Client,
    /// Without the route's prefix.
    pub(super) target: &'a str,
    /// Whether it asks for WebSocket.
    pub(super) upgrade: bool,
    pub(super) ids: &'a Ids,
}

impl Outgoing<'_> {
    /// The part of the path that the route cut off.
    fn prefix(&self) -> &str {
        let target = self.request.uri().path_and_query();
        let target = target.map_or("", PathAndQuery::as_str);
        target.strip_suffix(self.target).unwrap_or_default()
    }

    /// The request for one node.
    pub(super) fn to(&self, node: &Endpoint, body: RequestBody, via: &HeaderValue) -> Request {
        let received = self.request.headers();
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        let slash = match self.target.starts_with('/') {
            true => "",
            false => "/", // the route's prefix was all there was before the query
        };
        let start = [
            self.request.method().as_str(),
            " ",
            slash,
            self.target,
            " HTTP/1.1\r\n",
        ];
        for part in start {
            head.extend_from_slice(part.as_bytes());
        }
        // HTTP/1.1 requires a Host, HTTP/1.0 does not.
        let host = target::host(self.request);
        fields::put_list(
            &mut head,
            &HOST,
            [host.unwrap_or(node.authority().as_bytes())],
        );
        let peer = self.client.peer.as_ref();
        let is_replaced = |name: &HeaderName| {
            let is_written = *name == HOST || (body.is_chunked() && *name == CONTENT_LENGTH);
            is_written || self.ids.replace(name)
        };
        headers::put_all(&mut head, received, host, peer, via, is_replaced);
        forwarded::put_prefix(&mut head, received, peer, self.prefix());
        self.ids.put(&mut head);
        if self.upgrade {
            head.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        }
        if body.is_chunked() {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let info = RequestInfo {
            is_head: *self.request.method() == Method::HEAD,
            is_upgrade: self.upgrade,
        };
        Request { head, body, info }
    }
}
