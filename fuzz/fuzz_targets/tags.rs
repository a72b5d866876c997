//! Tags, as on a command line and in the header of a request.
#![no_main]

use discovery::Tags;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(tags) = text.parse::<Tags>() else {
        return;
    };
    assert!(tags.contain(&tags) && tags.contain(&Tags::new()));
    assert_eq!(tags.clone().and(&tags).as_ref(), Some(&tags));
    let again = tags.to_string().parse::<Tags>();
    assert_eq!(again.expect("what we write we can read"), tags);
});
