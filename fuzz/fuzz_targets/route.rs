//! A route of the gateway, as on a command line, and the paths it is asked about.
#![no_main]

use libfuzzer_sys::fuzz_target;
use route::Route;

// The gateway's own file: the gateway with all it is built of would take minutes to compile.
#[path = "../../service-gateway/src/route.rs"]
mod route;

fuzz_target!(|input: (&str, &str)| {
    let (text, path) = input;
    let Ok(route) = text.parse::<Route>() else {
        return;
    };
    if let Some(rest) = route.cut(path) {
        assert_eq!(format!("{}{rest}", route.prefix), path);
    }
    assert_eq!(route.cut(&format!("{}/x", route.prefix)), Some("/x"));
    let again = route.to_string().parse::<Route>();
    assert_eq!(again.expect("what we write we can read"), route);
});
