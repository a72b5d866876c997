//! A service's name, which becomes a part of keys and URLs.
#![no_main]

use discovery::ServiceName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(name) = text.parse::<ServiceName>() else {
        return;
    };
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    assert!((1..=63).contains(&text.len()) && text.bytes().all(inner));
    assert!(!text.starts_with('-') && !text.ends_with('-'));
    assert_eq!(name.as_str(), text);
});
