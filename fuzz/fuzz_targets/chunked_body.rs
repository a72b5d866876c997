//! A chunked body, of a request or a response. Its division into segments must not change the result.
//!
//! The first byte of the input is the place of the cut.
#![no_main]

use bytes::BytesMut;
use http1::{Decoded, Framing, InvalidChunk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [cut, body @ ..] = input else {
        return;
    };
    let (one, other) = body.split_at(body.len().min(usize::from(*cut)));
    assert_eq!(decode(&[body]), decode(&[one, other]));
});

/// Returns the decoded body, the bytes behind it, and whether it ended.
fn decode(segments: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), InvalidChunk> {
    let (mut received, mut framing) = (BytesMut::new(), Framing::CHUNKED);
    let mut body = Vec::new();
    for segment in segments {
        received.extend_from_slice(segment);
        while let Decoded::Data(data) = framing.decode(&mut received)? {
            assert!(!data.is_empty());
            body.extend_from_slice(&data);
        }
    }
    Ok((body, received.to_vec(), framing.is_ended()))
}
