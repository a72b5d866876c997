use actix_web::http::header::{HOST, HeaderMap};
use actix_web::http::uri::PathAndQuery;
use actix_web::http::{Method, Uri};

use crate::error::{Reason, Refusal};

/// The path and query of a request that may be proxied.
///
/// # Errors
/// Whatever could be read one way here and another way by the node: targets that are not paths,
/// `.` and `..` (percent-encoded too), backslashes, encoded slashes in these, NUL.
pub(super) fn origin_form<'a>(method: &Method, uri: &'a Uri) -> Result<&'a str, Refusal> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Reason::NotImplemented.because(format!("{method} is not for a gateway")));
    }
    let target = uri.path_and_query().map(PathAndQuery::as_str);
    let (Some(target), None, None) = (target, uri.scheme(), uri.authority()) else {
        return Err(Reason::BadRequest.because("the target has to be a path"));
    };
    if !target.starts_with('/') {
        return Err(Reason::BadRequest.because("the target has to be a path"));
    }
    if is_ambiguous(uri.path()) {
        return Err(Reason::BadRequest.because("the path is ambiguous"));
    }
    Ok(target)
}

/// Refuses a `Host` that is none. It goes on as it is, and into `X-Forwarded-Host`, where a comma
/// would make two of it.
pub(super) fn check_host(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(HOST).map_or(&[][..], |host| host.as_bytes());
    if host.iter().all(is_of_host) {
        Ok(())
    } else {
        Err(Reason::BadRequest.because("Host is not the name of a host"))
    }
}

/// Reports whether a text can be the value of `Host`.
pub(super) fn is_host(text: &str) -> bool {
    !text.is_empty() && text.as_bytes().iter().all(is_of_host)
}

fn is_of_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%:[]".contains(byte)
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
    fn what_could_be_read_in_two_ways_is_refused() {
        for path in [
            "*",
            "http://other/x",
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
