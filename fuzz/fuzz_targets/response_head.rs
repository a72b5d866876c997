//! The head of a node's response. Its division into segments must not change the result.
//!
//! The first two bytes of the input are the properties of the request and the place of the cut.
#![no_main]

use bytes::BytesMut;
use http1::Framing;
use libfuzzer_sys::fuzz_target;
use upstream::fields::is_hop_by_hop;
use upstream::{RequestInfo, ResponseHead};

fuzz_target!(|input: &[u8]| {
    let [request, cut, response @ ..] = input else {
        return;
    };
    let info = RequestInfo {
        is_head: request & 1 != 0,
        is_upgrade: request & 2 != 0,
    };
    let mut received = BytesMut::from(response);
    let parsed = ResponseHead::parse(&mut received, info);

    let (one, other) = response.split_at(response.len().min(usize::from(*cut)));
    let mut segments = BytesMut::from(one);
    let mut again = ResponseHead::parse(&mut segments, info);
    segments.extend_from_slice(other);
    if let Ok(None) = again {
        again = ResponseHead::parse(&mut segments, info);
    }
    match (&parsed, &again) {
        (Ok(Some((head, framing))), Ok(Some((same_head, same_framing)))) => {
            assert_eq!((head.status, framing), (same_head.status, same_framing));
            assert_eq!(received, segments);
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        _ => panic!("{parsed:?} became {again:?}"),
    }

    let Ok(Some((head, framing))) = parsed else {
        return;
    };
    assert!(
        head.headers
            .keys()
            .all(|name| !is_hop_by_hop(name.as_str()))
    );
    assert!(!head.headers.contains_key("content-length"));
    let has_no_body = info.is_head || matches!(head.status.as_u16(), 100..=199 | 204 | 304);
    assert!(!has_no_body || framing == Framing::Length(0));
    if framing == Framing::CHUNKED {
        assert_eq!(head.length, None);
    }
});
