use actix_web::HttpRequest;
use discovery::Endpoint;
use http::Method;
use http::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http_body::Body;

use super::headers;
use super::origin::Origin;
use super::trace::Ids;
use super::upload::RequestBody;
use crate::client::Client;
use crate::error::{Reason, Refusal};

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
    /// The request for one node.
    pub(super) fn to(
        &self,
        node: &Endpoint,
        body: RequestBody,
        via: &HeaderValue,
    ) -> Result<http::Request<RequestBody>, Refusal> {
        let origin = Origin::of(self.request);
        let mut headers = headers::request(self.request.headers(), origin, via);
        self.ids.tell_node(&mut headers);
        if self.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        if body.size_hint().exact().is_none() {
            // For a GET, hyper would leave out the body instead.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if !headers.contains_key(HOST) {
            // HTTP/1.0 knows requests without, HTTP/1.1 does not.
            let host = HeaderValue::try_from(node.authority());
            headers.insert(HOST, host.expect("an address is plain ASCII"));
        }
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method()?;
        *request.uri_mut() = self.path_and_query()?.into();
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn method(&self) -> Result<Method, Refusal> {
        let method = Method::from_bytes(self.request.method().as_str().as_bytes());
        method.map_err(|error| Reason::BadRequest.because(error))
    }

    /// What the node is asked for. A route's prefix may have been all there was before the query.
    fn path_and_query(&self) -> Result<PathAndQuery, Refusal> {
        let target = match self.target.starts_with('/') {
            true => PathAndQuery::try_from(self.target),
            false => PathAndQuery::try_from(["/", self.target].concat()),
        };
        target.map_err(|error| Reason::BadRequest.because(error))
    }
}
