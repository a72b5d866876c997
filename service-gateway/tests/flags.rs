//! Flags of any text: a value that is allowed, or a refusal that says what is.

use std::time::Duration;

use clap::Parser;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use service_gateway::{Cli, Route};

/// The gateway's command line with one flag. As one argument, so that a leading hyphen is no flag.
fn with(flag: &str, value: &str) -> Result<Cli, clap::Error> {
    let argument = format!("--{flag}={value}");
    let cli = Cli::try_parse_from(["service-gateway", &argument]);
    if let Err(error) = &cli {
        assert_eq!(error.exit_code(), 2, "{argument}");
    }
    cli
}

/// Any text, or some of these pieces in any order.
fn text_of(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let pieces = vec(select(pieces), 0..8).prop_map(|pieces| pieces.concat());
    prop_oneof![1 => any::<String>(), 4 => pieces]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_route_is_read_as_it_was_written(text in text_of(&[
        "/", "/a", "/..", "=", "greeter", "?", "version=v1", "&", "region=cn", ",", " ", "-", "%2e",
    ])) {
        if let Ok(route) = text.parse::<Route>() {
            prop_assert_eq!(&route.to_string().parse::<Route>().unwrap(), &route);
            prop_assert!(route.prefix.is_empty() || route.prefix.starts_with('/'));
            prop_assert!(!route.prefix.ends_with('/'));
            let path = format!("{}/x", route.prefix);
            prop_assert_eq!(route.cut(&path), Some("/x"));
        }
    }

    #[test]
    fn a_route_cuts_whole_segments(
        prefix in "(/[ab]{1,2}){0,3}",
        path in "(/[ab]{1,2}){0,4}/?",
    ) {
        let route: Route = format!("{}=greeter", if prefix.is_empty() { "/" } else { &prefix }).parse().unwrap();
        let segments = |path: &str| path.split('/').map(String::from).collect::<Vec<_>>();
        let below = segments(&path).starts_with(&segments(&prefix));
        prop_assert_eq!(route.cut(&path).is_some(), below, "{} {}", prefix, path);
        prop_assert!(route.cut(&path).is_none_or(|rest| prefix + rest == path));
    }

    #[test]
    fn a_time_is_within_its_limits_or_refused(text in text_of(&["0", "1", "10", "ms", "s", "m", "day", "y", " ", ".", "-"])) {
        if let Ok(cli) = with("timeout", &text) {
            let day = Duration::from_secs(86_400);
            prop_assert!((Duration::from_millis(1)..=day).contains(&cli.config.timeout));
        }
    }

    #[test]
    fn a_probe_path_is_a_path_or_off(text in text_of(&["/", "health", "off", "?", "#", "http://a", "//", "%", " ", "\\"])) {
        if let Ok(cli) = with("probe-path", &text) {
            match cli.config.probe_path.0 {
                None => prop_assert_eq!(text, "off"),
                Some(path) => prop_assert!(path == text && path.starts_with('/')),
            }
        }
    }

    #[test]
    fn numbers_are_within_their_limits_or_refused(number in any::<i64>(), small in -5..600_i64) {
        for number in [number, small] {
            prop_assert_eq!(with("attempts", &number.to_string()).is_ok(), (1..=100).contains(&number));
            prop_assert_eq!(with("workers", &number.to_string()).is_ok(), (1..=512).contains(&number));
        }
    }

    #[test]
    fn an_admin_host_is_a_name_or_refused(text in text_of(&["gateway", ".", "example", "-", "_", ":9090", "[::1]", "/", "@", "*", ",", " "])) {
        if let Ok(cli) = with("admin-host", &text) {
            let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            for host in cli.config.admin_hosts {
                prop_assert!(!host.is_empty() && host.chars().all(is_of_name), "{text}: {host}");
            }
        }
    }

    #[test]
    fn no_flag_panics(
        flag in select(&["listen", "admin-listen", "admin-host", "registry", "route", "balancer", "timeout", "attempts"][..]),
        text in any::<String>(),
    ) {
        let _ = with(flag, &text); // which checks the exit code
    }
}
