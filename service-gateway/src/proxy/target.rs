use std::net::Ipv6Addr;

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderMap, HeaderValue};
use actix_web::http::uri::{Authority, PathAndQuery, Scheme};
use actix_web::http::{Method, Uri};

use crate::error::{Reason, Refusal};

/// Returns the path and query of a request that may be proxied, in origin-form. An `http` target in
/// absolute-form is accepted as every server has to ([RFC 9112, section 3.2.2][1]).
///
/// # Errors
/// If the node could interpret the target in another way: targets that are not paths,
/// `.` and `..` (percent-encoded too), backslashes, encoded slashes in these, NUL. Absolute-form with
/// another scheme: the proxy port has no TLS, and a request for an `https` resource without TLS has to be
/// rejected ([RFC 9110, section 7.4][2]). Userinfo, with which a target can look like one of
/// another host ([RFC 9110, section 4.2.4][3]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
/// [2]: https://www.rfc-editor.org/rfc/rfc9110#section-7.4
/// [3]: https://www.rfc-editor.org/rfc/rfc9110#section-4.2.4
pub(super) fn origin_form<'a>(method: &Method, uri: &'a Uri) -> Result<&'a str, Refusal> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Reason::NotImplemented.because(format!("{method} is not for a gateway")));
    }
    let target = uri.path_and_query().map(PathAndQuery::as_str);
    let bad = |detail: &str| Err(Reason::BadRequest.because(detail));
    let target = match (target, uri.scheme(), uri.authority()) {
        (Some(target), None, None) if target.starts_with('/') => target,
        (Some(target), Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => {
            if !is_host(authority.as_str()) {
                return bad("the target's authority is not a host and port");
            }
            target
        }
        (_, Some(_), _) => return bad("the target's scheme has to be http"),
        _ => return bad("the target has to be a path"),
    };
    if is_ambiguous(uri.path()) {
        return bad("the path is ambiguous");
    }
    Ok(target)
}

/// Returns the host and port that a request is for: those of its target, or else of its `Host`, which has
/// to be ignored then ([RFC 9112, section 3.2.2][1]). `None` for HTTP/1.0 without either.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
pub(super) fn host(request: &HttpRequest) -> Option<&[u8]> {
    let authority = request.uri().authority().map(Authority::as_str);
    let received = || request.headers().get(HOST).map(HeaderValue::as_bytes);
    authority.map(str::as_bytes).or_else(received)
}

/// Refuses a request whose `Host` is invalid ([RFC 9112, section 3.2][1]). An empty one is valid: the target
/// has no authority.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9112#section-3.2
pub(super) fn check_host(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(HOST).map_or(&[][..], HeaderValue::as_bytes);
    let is_valid = host.is_empty() || str::from_utf8(host).is_ok_and(is_host);
    if is_valid {
        Ok(())
    } else {
        Err(Reason::BadRequest.because("Host is not the name of a host"))
    }
}

/// Returns whether a text is `uri-host [ ":" port ]` ([RFC 9110, section 7.2][1]) with a host that is not
/// empty, as `http` requires ([section 4.2.1][2]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.2
/// [2]: https://www.rfc-editor.org/rfc/rfc9110#section-4.2.1
pub(super) fn is_host(text: &str) -> bool {
    let (is_valid, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (literal, rest) = text.split_once(']').unwrap_or_default();
            (is_ip_literal(literal), rest)
        }
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (!name.is_empty() && is_reg_name(name), rest)
        }
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    is_valid && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// Returns whether a text is an IPv6 address or of a later version, for which only the form is fixed
/// ([RFC 3986, section 3.2.2][1]).
///
/// [1]: https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2
fn is_ip_literal(text: &str) -> bool {
    let later = text.strip_prefix(['v', 'V']);
    let Some((version, address)) = later.and_then(|text| text.split_once('.')) else {
        return text.parse::<Ipv6Addr>().is_ok();
    };
    let is_version = !version.is_empty() && version.bytes().all(|b| b.is_ascii_hexdigit());
    let is_of_address = |byte| is_of_name(byte) || byte == b':';
    is_version && !address.is_empty() && address.bytes().all(is_of_address)
}

/// Returns whether a text is a registered name or an IPv4 address.
fn is_reg_name(text: &str) -> bool {
    let mut parts = text.split('%');
    let is_plain = |part: &str| part.bytes().all(is_of_name);
    let is_encoded = |part: &str| {
        let (byte, rest) = part.split_at_checked(2).unwrap_or_default();
        !byte.is_empty() && byte.bytes().all(|b| b.is_ascii_hexdigit()) && is_plain(rest)
    };
    parts.next().is_some_and(is_plain) && parts.all(is_encoded)
}

/// Returns whether a byte is an unreserved character or a sub-delim of [RFC 3986, section 2][1].
///
/// [1]: https://www.rfc-editor.org/rfc/rfc3986#section-2.2
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

fn is_ambiguous(path: &str) -> bool {
    if !path.contains(['%', '\\', '.']) {
        return false; // nearly all
    }
    let plain = path
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "\\");
    plain.contains("%00")
        || plain.contains('\\')
        || plain.split('/').any(|segment| {
            let name = segment.split(';').next().unwrap_or(segment); // `..;x` is `..` to some
            name == "." || name == ".."
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: Method, uri: &str) -> Result<String, Reason> {
        let uri: Uri = uri.parse().unwrap();
        origin_form(&method, &uri)
            .map(str::to_owned)
            .map_err(|refusal| refusal.reason)
    }

    #[test]
    fn paths_go_on_as_they_came() {
        for path in [
            "/",
            "/a/b?c=d%20e",
            "/a//b",
            "/%E4%BD%A0",
            "/a.b/.well-known/...",
            "/?q=../x",
            "/a%2Fb",
        ] {
            assert_eq!(target(Method::GET, path).as_deref(), Ok(path));
        }
    }

    #[test]
    fn hosts_follow_the_grammar() {
        for host in [
            "a",
            "A_b.c-d.:80",
            "a:",
            "a~!$&'()*+,;=b:1",
            "caf%C3%A9.example",
            "127.0.0.1:8080",
            "[::1]",
            "[2001:db8::192.0.2.7]:80",
            "[v1.fe80:a,b]:80",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@a",
            "a?b",
            "a#b",
            "a\\b",
            "<a>",
            "\"a\"",
            "a|b",
            "a^b",
            "caf\u{e9}",
            "a%",
            "a%2",
            "a%2g",
            "%\u{e9}",
            "a:b",
            "a:80:80",
            "a:-1",
            "::1",
            "[]",
            "[",
            "[::1",
            "::1]",
            "[::1]80",
            "[::1]:a",
            "[[::1]]",
            "[1.2.3.4]",
            "[fe80::1%25eth0]",
            "[v.a]",
            "[v1.]",
            "[vg.a]",
            "[v1.a/b]",
            "a[::1]",
            "[a]",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn absolute_form_becomes_origin_form() {
        for (absolute, expected) in [
            ("http://other/x?y=z", "/x?y=z"),
            ("HTTP://other:8080/x", "/x"),
            ("http://[::1]:80/x", "/x"),
            ("http://other", "/"),
            ("http://other//x", "//x"),
            (
                "http://other/x?http://user@host/..",
                "/x?http://user@host/..",
            ),
        ] {
            assert_eq!(target(Method::GET, absolute).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for path in [
            "*",
            "a:80",
            "https://other/x",
            "ftp://other/x",
            "http://user@other/x",
            "http://other@evil.example:80/x",
            "http://other/a/../b",
            "http://other/%2e%2e",
            "/a/..",
            "/../a",
            "/a/./b",
            "/%2e%2E/a",
            "/.%2e",
            "/a%2f..%2fb",
            "/a%5cb",
            "/..;x/a",
            "/%00",
            "/a%2f..",
        ] {
            assert_eq!(target(Method::GET, path), Err(Reason::BadRequest), "{path}");
        }
        assert_eq!(target(Method::CONNECT, "a:80"), Err(Reason::NotImplemented));
        assert_eq!(target(Method::TRACE, "/"), Err(Reason::NotImplemented));
    }
}
