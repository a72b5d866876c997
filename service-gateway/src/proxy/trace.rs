//! The fields that connect the entries of a request in several logs: `traceparent`
//! ([W3C Trace Context](https://www.w3.org/TR/trace-context/)) and `x-request-id`.
//!
//! The gateway takes part in no trace: it forwards `traceparent` and `tracestate` unchanged, valid or not, and
//! generates none. A trace of its own, marked as not sampled, would switch off the tracing of all services
//! behind it. A request without a valid `x-request-id` gets one.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::BytesMut;

use super::fields;
use crate::request_id::{self, REQUEST_ID};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id of one request, the same for each attempt.
#[derive(Debug)]
pub(crate) struct Ids {
    /// `None` if the client sent a valid one.
    request_id: Option<HeaderValue>,
}

impl Ids {
    pub(super) fn of(received: &HeaderMap) -> Self {
        let is_sent = single(received, &REQUEST_ID, request_id::is_valid).is_some();
        Self {
            request_id: (!is_sent).then(request_id::generate),
        }
    }

    /// Returns whether the generated id replaces the value that the client sent in this field.
    pub(super) fn replaces(&self, name: &HeaderName) -> bool {
        self.request_id.is_some() && *name == REQUEST_ID
    }

    /// Writes the id if it was generated.
    pub(super) fn put(&self, head: &mut BytesMut) {
        if let Some(id) = &self.request_id {
            fields::put(head, &REQUEST_ID, id);
        }
    }

    /// Sets the field of the response with the id.
    pub(super) fn set_response_field(&self, received: &HeaderMap, headers: &mut HeaderMap) {
        let id = self
            .request_id
            .as_ref()
            .or_else(|| received.get(REQUEST_ID));
        if let Some(id) = id {
            headers.insert(REQUEST_ID, id.clone());
        }
    }

    pub(crate) fn request_id<'a>(&'a self, received: &'a HeaderMap) -> &'a str {
        let id = self
            .request_id
            .as_ref()
            .or_else(|| received.get(REQUEST_ID));
        id.and_then(|id| id.to_str().ok()).unwrap_or_default()
    }
}

/// Returns the id of the trace that a request belongs to. `None` if its `traceparent` is missing or invalid.
pub(super) fn trace_id(received: &HeaderMap) -> Option<&str> {
    let traceparent = single(received, &TRACEPARENT, is_traceparent)?;
    traceparent.to_str().ok()?.get(3..35)
}

/// Returns the value of a field, if there is one, and it is valid.
fn single<'a>(
    received: &'a HeaderMap,
    name: &HeaderName,
    is_valid: fn(&[u8]) -> bool,
) -> Option<&'a HeaderValue> {
    let mut values = received.get_all(name);
    let value = values.next()?;
    (values.next().is_none() && is_valid(value.as_bytes())).then_some(value)
}

/// Returns whether a `traceparent` is valid ([section 3.2][1]). Later versions may add parts after a hyphen.
///
/// [1]: https://www.w3.org/TR/trace-context/#traceparent-header
pub(super) fn is_traceparent(value: &[u8]) -> bool {
    let Some((known, more)) = value.split_at_checked(55) else {
        return false;
    };
    let mut parts = known.split(|byte| *byte == b'-');
    let mut part = |length| {
        let part = parts.next().filter(|part| part.len() == length);
        part.filter(|part| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let (version, trace, parent, flags) = (part(2), part(32), part(16), part(2));
    let is_id = |id: Option<&[u8]>| id.is_some_and(|id| id.iter().any(|digit| *digit != b'0'));
    let ends_well = match version {
        None | Some(b"ff") => false,
        Some(b"00") => more.is_empty(),
        Some(_) => more.is_empty() || more[0] == b'-',
    };
    ends_well && is_id(trace) && is_id(parent) && flags.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn received(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse().unwrap(), value.parse().unwrap());
        }
        headers
    }

    /// Returns the fields that a node receives.
    fn sent(lines: &[(&str, &str)]) -> HeaderMap {
        let received = received(lines);
        let (ids, mut head) = (Ids::of(&received), BytesMut::new());
        let via = HeaderValue::from_static("1.1 gateway");
        crate::proxy::headers::put_all(&mut head, &received, None, None, &via, |name| {
            ids.replaces(name)
        });
        ids.put(&mut head);
        fields::parse(&head)
    }

    #[test]
    fn a_trace_is_forwarded_unchanged() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let valid = ["00", "01", "cc"].map(|version| SOUND.replacen("00", version, 1));
        let later = format!("{}-more", SOUND.replacen("00", "cc", 1));
        let invalid = [
            String::new(),
            SOUND.to_uppercase(),
            format!("{SOUND}-more"),
            format!("{}more", SOUND.replacen("00", "cc", 1)),
            SOUND.replacen("00", "ff", 1),
            SOUND.replace('-', "_"),
            SOUND[..54].to_owned(),
            SOUND.replace(id, &"0".repeat(32)),
            SOUND.replace("00f067aa0ba902b7", &"0".repeat(16)),
            SOUND.replace("a3ce", "-3ce"),
        ];
        let valid = valid
            .into_iter()
            .chain([later])
            .map(|text| (text, Some(id)));
        let invalid = invalid.into_iter().map(|text| (text, None));
        for (traceparent, id) in valid.chain(invalid) {
            let lines = [("traceparent", traceparent.as_str()), ("tracestate", "a=1")];
            let headers = sent(&lines);
            assert_eq!(headers.get("traceparent").unwrap(), &traceparent);
            assert_eq!(headers.get("tracestate").unwrap(), "a=1");
            assert_eq!(trace_id(&received(&lines)), id, "{traceparent}");
        }
    }

    #[test]
    fn two_traces_have_no_trace_id() {
        let lines = [("traceparent", SOUND), ("traceparent", SOUND)];
        assert_eq!(sent(&lines).get_all("traceparent").count(), 2);
        assert_eq!(trace_id(&received(&lines)), None);
    }

    #[test]
    fn no_trace_is_generated() {
        let headers = sent(&[("tracestate", "a=1")]);
        assert!(!headers.contains_key("traceparent"));
        assert_eq!(headers.get("tracestate").unwrap(), "a=1");
        assert_eq!(trace_id(&received(&[])), None);
    }

    #[test]
    fn a_valid_request_id_is_kept() {
        let long = "x".repeat(129);
        for (id, kept) in [
            ("a1/B:2", true),
            (&long[1..], true),
            (&long, false),
            ("a b", false),
            ("", false),
        ] {
            let headers = sent(&[("x-request-id", id)]);
            assert_eq!(headers.get("x-request-id").unwrap() == id, kept, "{id}");
            assert!(request_id::is_valid(
                headers.get("x-request-id").unwrap().as_bytes()
            ));
        }
    }

    #[test]
    fn request_ids_are_unique() {
        let (one, other) = (sent(&[]), sent(&[]));
        assert_ne!(
            one.get("x-request-id").unwrap(),
            other.get("x-request-id").unwrap()
        );
    }

    #[test]
    fn client_and_log_have_the_same_id() {
        for lines in [&[("x-request-id", "mine")][..], &[]] {
            let received = received(lines);
            let ids = Ids::of(&received);
            let mut response = HeaderMap::new();
            ids.set_response_field(&received, &mut response);
            let id = ids.request_id(&received);
            assert_eq!(response.get("x-request-id").unwrap(), id);
            assert!(request_id::is_valid(id.as_bytes()));
        }
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -p service-gateway making_ids -- --ignored --nocapture"]
    fn making_ids_costs_nanoseconds() {
        const ROUNDS: u32 = 1_000_000;
        let received = received(&[("host", "test"), ("accept", "*/*"), ("user-agent", "x")]);
        let began = std::time::Instant::now();
        for _ in 0..ROUNDS {
            std::hint::black_box(Ids::of(std::hint::black_box(&received)));
        }
        println!("{:?} to generate one", began.elapsed() / ROUNDS);
        let (mut node, mut client) = (BytesMut::with_capacity(1024), HeaderMap::new());
        let began = std::time::Instant::now();
        for _ in 0..ROUNDS {
            let ids = Ids::of(std::hint::black_box(&received));
            ids.put(&mut node);
            ids.set_response_field(&received, &mut client);
            node.clear();
            client.clear();
        }
        println!("{:?} to generate and write it", began.elapsed() / ROUNDS);
    }
}
