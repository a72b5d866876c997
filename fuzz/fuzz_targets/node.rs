//! A node's value in a registry, which anybody may have written.
#![no_main]

use discovery::{MAX_TAGS, MAX_VALUE_BYTES, ServiceNode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let Ok(node) = ServiceNode::from_json(json) else {
        return;
    };
    assert!(json.len() <= MAX_VALUE_BYTES && node.tags.len() <= MAX_TAGS);
    assert!(node.address.port() != 0 && !node.address.ip().is_unspecified());
    assert!((1..=1000).contains(&node.weight()));
    let written = node.to_json();
    if written.len() <= MAX_VALUE_BYTES {
        let again = ServiceNode::from_json(written.as_bytes());
        assert_eq!(again.expect("what we write we can read"), node);
    }
});
