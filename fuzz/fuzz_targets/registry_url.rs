//! A registry's URL, as on a command line.
#![no_main]

use discovery::RegistryUrl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = RegistryUrl::redact(text);
    let Ok(url) = text.parse::<RegistryUrl>() else {
        return;
    };
    assert_eq!(url.endpoints().is_empty(), url.scheme() == "memory");
    assert!(url.prefix().is_empty() || url.prefix().ends_with('/'));
    if text.contains('@') {
        return; // a password is not told, so not read again
    }
    let again = url.to_string().parse::<RegistryUrl>();
    assert_eq!(again.expect("what we write we can read"), url);
});
