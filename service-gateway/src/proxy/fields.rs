//! Writes the field lines of a request's head.

use actix_web::http::header::{HeaderName, HeaderValue};
use bytes::BytesMut;

/// Writes a field line.
pub(super) fn put(head: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    put_list(head, name, [value.as_bytes()]);
}

/// Writes a field line with several elements. Without elements it writes nothing.
pub(super) fn put_list<'a>(
    head: &mut BytesMut,
    name: &HeaderName,
    elements: impl IntoIterator<Item = &'a [u8]>,
) {
    let mut elements = elements.into_iter();
    let Some(first) = elements.next() else {
        return;
    };
    head.extend_from_slice(name.as_str().as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(first);
    for element in elements {
        head.extend_from_slice(b", ");
        head.extend_from_slice(element);
    }
    head.extend_from_slice(b"\r\n");
}

/// Parses the fields of a head that was written here.
#[cfg(test)]
pub(super) fn parse(head: &[u8]) -> actix_web::http::header::HeaderMap {
    let head = [head, b"\r\n"].concat();
    let mut lines = [httparse::EMPTY_HEADER; 100];
    let parsed = httparse::parse_headers(&head, &mut lines).unwrap();
    let (_, lines) = parsed.unwrap();
    let mut headers = actix_web::http::header::HeaderMap::new();
    for line in lines {
        let value = HeaderValue::from_bytes(line.value).unwrap();
        headers.append(line.name.parse().unwrap(), value);
    }
    headers
}
