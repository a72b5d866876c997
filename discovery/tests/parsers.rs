//! Parsers of texts from outside, with any text and with nearly valid ones. No parser panics, an accepted
//! value keeps its invariants, and a formatted value parses as the same.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::net::{IpAddr, SocketAddr};

use discovery::{
    Balancer, MAX_TAGS, MAX_VALUE_BYTES, RegistryUrl, ServiceName, ServiceNode, Tags, connect,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Any text, or some of these pieces in any order, which come closer to valid input.
fn text_of(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let pieces = vec(
        prop_oneof![9 => select(pieces).prop_map(String::from), 1 => any::<String>()],
        0..10,
    );
    prop_oneof![1 => any::<String>(), 4 => pieces.prop_map(|pieces| pieces.concat())]
}

fn name() -> impl Strategy<Value = ServiceName> {
    "[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?".prop_map(|name| name.parse().unwrap())
}

/// Tags as a program may create them.
fn tags() -> impl Strategy<Value = Tags> {
    let made = vec(("\\PC{1,5}", "\\PC{0,9}"), 0..MAX_TAGS);
    made.prop_map(|pairs| {
        let mut tags = Tags::new();
        for (key, value) in pairs {
            let _ = tags.insert(&key, &value); // rejected ones are not inserted
        }
        tags
    })
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let addresses = (any::<IpAddr>(), 1..u16::MAX).prop_map(SocketAddr::from);
    addresses.prop_filter("one to connect to", |address| {
        !address.ip().is_unspecified() && !address.ip().is_multicast()
    })
}

fn node() -> impl Strategy<Value = ServiceNode> {
    (name(), address(), tags())
        .prop_map(|(name, address, tags)| ServiceNode::new(name, address).with_tags(tags))
}

/// A password with parts that are recognisable in any text: six capitals at least.
fn password() -> impl Strategy<Value = String> {
    let mark = select(
        &[
            "", "7/", "7?", "/", "?", "#", "@", ":", ",", "%", " ", "=", "&", "\\", "://", "é",
        ][..],
    );
    vec((mark, "[A-Z]{6,8}"), 1..4).prop_map(|parts| {
        let parts = parts
            .into_iter()
            .map(|(mark, letters)| format!("{mark}{letters}"));
        parts.collect()
    })
}

/// A valid or invalid URL, and the password in it.
fn url_with_password() -> impl Strategy<Value = (String, String)> {
    let scheme = select(
        &[
            "etcd://",
            "etcd+tls://",
            "zookeeper://",
            "consul://",
            "memory:",
            "etcd:/",
            "etcd:",
            "etcds://",
            "ETCD://",
            "http://",
            "etcd//",
            "//",
            " etcd://",
            "",
        ][..],
    );
    // Without an @ after it, a text with another @ or a port before a / is a URL without a password, and so
    // is a password alone, which is a host name.
    let has_at = |form: &str| form.contains("P@") || form.contains("?");
    let form = select(
        &[
            "root:P@a",
            "root:P@a:1,b:2/x",
            "root:P@",
            "root:P@a?ca=/c",
            "root:P@a?password-file=/p",
            ":P@a",
            "P@a",
            "root:P@a:b",
            "root:P@a b",
            "root:P@a@b",
            "root:P@a/x@y",
            "root,P@a",
            "root%3AP@a",
            "root%3AP@a?password-file=/p",
            "root:P%40a",
            "root:P",
            "root:P a",
            "root:P,a",
            "root:P:1",
            "a?password=P",
            "a/x?token=P",
            "a?P",
            "a?ca=/c&P=x",
            "a:1#root:P",
        ][..],
    );
    (scheme, form, password(), any::<bool>()).prop_map(move |(scheme, form, password, encode)| {
        let plain = password.replace(|c: char| !c.is_ascii_uppercase(), "");
        let password = if has_at(form) { password } else { plain };
        let encoded = password
            .replace('%', "%25")
            .replace('/', "%2F")
            .replace('@', "%40");
        let spelled = if encode { &encoded } else { &password };
        (format!("{scheme}{}", form.replace('P', spelled)), password)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_name_is_one_dns_label(text in text_of(&["a", "Z", "9", "-", ".", "/", "ä"])) {
        let inner = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
        let label = (1..=63).contains(&text.len())
            && text.as_bytes().iter().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        match text.parse::<ServiceName>() {
            Ok(name) => prop_assert!(label && name.to_string() == text),
            Err(error) => prop_assert!(!label, "{error}"),
        }
    }

    #[test]
    fn tags_round_trip(tags in tags()) {
        prop_assert_eq!(tags.to_string().parse::<Tags>().unwrap(), tags);
    }

    #[test]
    fn tags_of_any_text_are_valid(text in text_of(&["a", "b=", "=", ",", " ", "v1", "\u{85}", "\t"])) {
        if let Ok(tags) = text.parse::<Tags>() {
            prop_assert_eq!(&tags.to_string().parse::<Tags>().unwrap(), &tags);
            prop_assert!(tags.iter().all(|(key, value)| !key.is_empty() && text.contains(value)));
            prop_assert!(tags.contain(&tags) && tags.clone().and(&tags) == Some(tags));
        }
    }

    #[test]
    fn a_node_round_trips(node in node()) {
        prop_assert_eq!(ServiceNode::from_json(node.to_json().as_bytes()).unwrap(), node);
    }

    #[test]
    fn a_changed_node_is_a_node_or_an_error(
        node in node(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut json = node.to_json().into_bytes();
        for (place, byte) in changes {
            let place = place.index(json.len());
            json[place] = byte;
        }
        sound(&json)?;
    }

    #[test]
    fn a_value_is_a_node_or_an_error(value in text_of(&[
        "{", "}", "[", "\"", ":", ",", "null", "\"ServiceName\":", "\"a\"", "\"IP\":", "\"10.0.0.5\"",
        "\"::1\"", "\"Port\":", "80", "65536", "-1", "1e3", "\"Tags\":", "{\"version\":\"v1\"}",
    ])) {
        sound(value.as_bytes())?;
    }

    #[test]
    fn a_value_has_its_limits(count in 0..2 * MAX_TAGS, padding in 0..2 * MAX_VALUE_BYTES) {
        let tags: Vec<_> = (0..count).map(|number| format!(r#""{number}":"""#)).collect();
        let (tags, padding) = (tags.join(","), "x".repeat(padding));
        let json = format!(
            r#"{{"ServiceName":"a","IP":"::1","Port":1,"Tags":{{{tags}}},"Padding":"{padding}"}}"#
        );
        let within = count <= MAX_TAGS && json.len() <= MAX_VALUE_BYTES;
        prop_assert_eq!(ServiceNode::from_json(json.as_bytes()).is_ok(), within);
    }

    #[test]
    fn a_registry_url_of_any_text_is_valid(text in text_of(&[
        "etcd://", "etcd+tls://", "memory:", "a", "10.0.0.1", "[::1]", "[", "]", ":", "2379", "0", "65536", ",", "/",
        " ", "@", "?", "ca=/ca", "&", "server-name=b", "=", "%41", "%", "é",
    ])) {
        if let Ok(url) = text.parse::<RegistryUrl>() {
            if !text.contains('@') { // a password is not formatted
                prop_assert_eq!(&url.to_string().parse::<RegistryUrl>().unwrap(), &url);
            }
            prop_assert!(connect(&url).is_ok());
            prop_assert_eq!(url.endpoints().is_empty(), url.scheme() == "memory");
            prop_assert!(url.prefix().is_empty() || url.prefix().ends_with('/'));
        }
    }

    #[test]
    fn no_output_of_a_registry_url_has_a_password(text in url_with_password()) {
        let (text, password) = text;
        let shown = match text.parse::<RegistryUrl>() {
            Ok(url) => format!("{url} {url:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        let shown = shown + &RegistryUrl::redact(&text);
        let parts = password.split(|c: char| !c.is_ascii_uppercase());
        for part in parts.filter(|part| part.len() >= 6) {
            prop_assert!(!shown.contains(part), "{part} of {text:?} in {shown}");
        }
    }

    #[test]
    fn a_registry_url_has_servers_and_prefix(
        servers in vec(("[a-z0-9]([a-z0-9.-]{0,9}[a-z0-9])?", prop::option::of(1..u16::MAX)), 1..4),
        path in prop::option::of("[a-z0-9/._-]{0,9}"),
    ) {
        let spelled = servers.iter().map(|(host, port)| match port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        });
        let spelled: Vec<_> = spelled.collect();
        let path_text = path.as_ref().map_or(String::new(), |path| format!("/{path}"));
        let url: RegistryUrl = format!("etcd://{}{path_text}", spelled.join(",")).parse().unwrap();
        let port = |(host, port): &(String, Option<u16>)| format!("{host}:{}", port.unwrap_or(2379));
        prop_assert_eq!(url.endpoints(), servers.iter().map(port).collect::<Vec<_>>());
        prop_assert_eq!(url.prefix().is_empty(), path.is_some_and(|path| path.trim_matches('/').is_empty()));
    }

    #[test]
    fn a_balancer_has_one_name(text in text_of(&["round", "-", "robin", "random", "ip-hash", " "])) {
        if let Ok(balancer) = text.parse::<Balancer>() {
            prop_assert_eq!(balancer.to_string(), text);
        }
    }

    #[test]
    fn combined_tags_contain_both(
        one in btree_map("[ab]", "[12]", 0..3),
        other in btree_map("[ab]", "[12]", 0..3),
    ) {
        let tags = |pairs: &std::collections::BTreeMap<String, String>| {
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            pairs.join(",").parse::<Tags>().unwrap()
        };
        let agree = one.iter().all(|(key, value)| other.get(key).is_none_or(|other| other == value));
        match tags(&one).and(&tags(&other)) {
            Some(both) => {
                prop_assert!(agree && both.contain(&tags(&one)) && both.contain(&tags(&other)));
                let extended: std::collections::BTreeMap<_, _> = one.into_iter().chain(other).collect();
                prop_assert_eq!(both, tags(&extended));
            }
            None => prop_assert!(!agree),
        }
    }
}

/// Requires that an accepted node has a usable address, and round-trips.
fn sound(json: &[u8]) -> Result<(), TestCaseError> {
    let Ok(node) = ServiceNode::from_json(json) else {
        return Ok(());
    };
    prop_assert!(node.address.port() != 0 && !node.address.ip().is_unspecified());
    prop_assert!(!node.address.ip().is_multicast() && node.tags.len() <= MAX_TAGS);
    prop_assert!((1..=1000).contains(&node.weight()));
    prop_assert_eq!(
        ServiceNode::from_json(node.to_json().as_bytes()).unwrap(),
        node
    );
    Ok(())
}
