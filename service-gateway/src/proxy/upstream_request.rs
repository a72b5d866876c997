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

/// The initial capacity for a head, in bytes. Most heads fit.
const HEAD_CAPACITY: usize = 1 << 10;

/// A client's request as it is sent to nodes.
#[derive(Clone, Copy)]
pub(super) struct UpstreamRequest<'a> {
    pub(super) received: &'a HttpRequest,
    /// The connection that it was received over.
    pub(super) client: &'a Client,
    /// The target without the route's prefix.
    pub(super) target: &'a str,
    /// Set for an upgrade to WebSocket.
    pub(super) is_upgrade: bool,
    pub(super) ids: &'a Ids,
}

impl UpstreamRequest<'_> {
    /// Returns the prefix that the route removed from the path.
    fn prefix(&self) -> &str {
        let target = self.received.uri().path_and_query();
        let target = target.map_or("", PathAndQuery::as_str);
        target.strip_suffix(self.target).unwrap_or_default()
    }

    /// Returns the request for one node.
    pub(super) fn for_node(
        &self,
        node: &Endpoint,
        body: RequestBody,
        via: &HeaderValue,
    ) -> Request {
        let received = self.received.headers();
        let mut head = BytesMut::with_capacity(HEAD_CAPACITY);
        let slash = if self.target.starts_with('/') {
            ""
        } else {
            "/" // the path was the route's prefix
        };
        let start = [
            self.received.method().as_str(),
            " ",
            slash,
            self.target,
            " HTTP/1.1\r\n",
        ];
        for part in start {
            head.extend_from_slice(part.as_bytes());
        }
        // HTTP/1.1 requires a Host, HTTP/1.0 does not.
        let host = target::host(self.received);
        fields::put_list(
            &mut head,
            &HOST,
            [host.unwrap_or(node.authority().as_bytes())],
        );
        let peer = self.client.peer.as_ref();
        let is_replaced = |name: &HeaderName| {
            let is_written = *name == HOST || (body.is_chunked() && *name == CONTENT_LENGTH);
            is_written || self.ids.replaces(name)
        };
        headers::put_all(&mut head, received, host, peer, via, is_replaced);
        forwarded::put_prefix(&mut head, received, peer, self.prefix());
        self.ids.put(&mut head);
        if self.is_upgrade {
            head.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        }
        if body.is_chunked() {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let info = RequestInfo {
            is_head: *self.received.method() == Method::HEAD,
            is_upgrade: self.is_upgrade,
        };
        Request { head, body, info }
    }
}
