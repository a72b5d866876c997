use actix_web::HttpRequest;
use discovery::Endpoint;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http_body::Body;

use super::headers;
use super::origin::Origin;
use super::upload::RequestBody;
use crate::error::{Reason, Refusal};

/// A client's request, as it goes to nodes.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) request: &'a HttpRequest,
    /// Without the route's prefix.
    pub(super) target: &'a str,
    /// Whether it asks for WebSocket.
    pub(super) upgrade: bool,
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
        if self.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        if body.size_hint().exact().is_none() {
            // For a GET, hyper would leave out the body instead.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let slash = if self.target.starts_with('/') {
            ""
        } else {
            "/"
        };
        let uri = ["http://", node.authority(), slash, self.target].concat();
        let request = http::Request::builder()
            .method(self.request.method().as_str())
            .uri(uri);
        let mut request = request
            .body(body)
            .map_err(|error| Reason::BadRequest.because(error))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}
