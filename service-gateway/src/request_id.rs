//! The id of a request (`x-request-id`), which connects its entries in several logs.

use actix_web::http::header::{HeaderName, HeaderValue};

/// The field with the id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of an id that is accepted from a client, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Returns whether a client's id may be written to logs and fields.
pub(crate) fn is_valid(id: &[u8]) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Generates an id: 32 hexadecimal digits.
pub(crate) fn generate() -> HeaderValue {
    let mut text = [0; 32];
    write_hex(fastrand::u128(..), &mut text);
    HeaderValue::from_bytes(&text).expect("hexadecimal digits are ASCII")
}

/// Writes a number as digits. `format!` would cost several times as much, for each request.
fn write_hex(mut number: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}
