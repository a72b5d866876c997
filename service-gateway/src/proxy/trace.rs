//! What connects the lines that a request leaves in many logs: `traceparent`
//! ([W3C Trace Context](https://www.w3.org/TR/trace-context/)) and `x-request-id`.
//!
//! The gateway reports no spans, so it passes a sound `traceparent` on untouched, and `tracestate` with
//! it. Where there is none it begins a trace, not sampled: it has recorded nothing itself.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::BytesMut;

use super::headers;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest `x-request-id` that is taken over from a client.
const LONGEST: usize = 128;

/// The ids of one request, the same for each attempt.
#[derive(Debug)]
pub(crate) struct Ids {
    /// `None` if the client sent a sound one.
    traceparent: Option<HeaderValue>,
    /// `None` if the client sent a sound one.
    request_id: Option<HeaderValue>,
}

impl Ids {
    pub(super) fn of(received: &HeaderMap) -> Self {
        let sent = |name, is_sound: fn(&[u8]) -> bool| sound(received, name, is_sound).is_some();
        Self {
            traceparent: (!sent(&TRACEPARENT, is_traceparent)).then(new_traceparent),
            request_id: (!sent(&REQUEST_ID, is_request_id)).then(new_request_id),
        }
    }

    /// Whether they stand in place of what the client said there, which made no sense.
    pub(super) fn replace(&self, name: &HeaderName) -> bool {
        match &self.traceparent {
            // The state belongs to a trace that nobody knows.
            Some(_) if *name == TRACEPARENT || *name == TRACESTATE => true,
            _ => self.request_id.is_some() && *name == REQUEST_ID,
        }
    }

    /// Writes those that were made.
    pub(super) fn put(&self, head: &mut BytesMut) {
        for (name, made) in [
            (TRACEPARENT, &self.traceparent),
            (REQUEST_ID, &self.request_id),
        ] {
            made.iter().for_each(|id| headers::put(head, &name, id));
        }
    }

    /// Tells the client under which id its request will be found.
    pub(super) fn tell_client(&self, received: &HeaderMap, headers: &mut HeaderMap) {
        let id = self
            .request_id
            .as_ref()
            .or_else(|| received.get(REQUEST_ID));
        if let Some(id) = id {
            headers.insert(REQUEST_ID, id.clone());
        }
    }

    pub(crate) fn request_id<'a>(&'a self, received: &'a HeaderMap) -> &'a str {
        text(&self.request_id, received, &REQUEST_ID)
    }

    pub(crate) fn trace_id<'a>(&'a self, received: &'a HeaderMap) -> &'a str {
        let traceparent = text(&self.traceparent, received, &TRACEPARENT);
        traceparent.get(3..35).unwrap_or_default()
    }
}

/// What was made, or else what the client sent.
fn text<'a>(made: &'a Option<HeaderValue>, received: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let text = match made {
        Some(made) => made.to_str().ok(),
        None => received.get(name).and_then(|sent| sent.to_str().ok()),
    };
    text.unwrap_or_default()
}

/// The only value of a header, if it makes sense.
fn sound<'a>(
    received: &'a HeaderMap,
    name: &HeaderName,
    is_sound: fn(&[u8]) -> bool,
) -> Option<&'a HeaderValue> {
    let mut values = received.get_all(name);
    let value = values.next()?;
    (values.next().is_none() && is_sound(value.as_bytes())).then_some(value)
}

/// Whether somebody else's tracer would understand it ([section 3.2][1]). What later versions add
/// comes after a hyphen.
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

/// Whether a client's id may go into logs and headers.
pub(super) fn is_request_id(value: &[u8]) -> bool {
    (1..=LONGEST).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

fn new_traceparent() -> HeaderValue {
    let mut text = *b"00-................................-................-00";
    write_hex(fastrand::u128(..).max(1), &mut text[3..35]); // 0 means none
    write_hex(fastrand::u64(..).max(1).into(), &mut text[36..52]);
    ascii(&text)
}

fn new_request_id() -> HeaderValue {
    let mut text = [0; 32];
    write_hex(fastrand::u128(..), &mut text);
    ascii(&text)
}

fn ascii(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).expect("hexadecimal digits and hyphens are ASCII")
}

/// By hand: `format!` would cost several times as much, with every request.
fn write_hex(mut number: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
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

    /// What a node gets.
    fn told(lines: &[(&str, &str)]) -> HeaderMap {
        let received = received(lines);
        let (ids, mut head) = (Ids::of(&received), BytesMut::new());
        let via = HeaderValue::from_static("1.1 gateway");
        headers::put_all(&mut head, &received, None, &via, |name| ids.replace(name));
        ids.put(&mut head);
        headers::parsed(&head)
    }

    #[test]
    fn a_sound_trace_goes_on_untouched() {
        for version in ["00", "01", "cc"] {
            let traceparent = SOUND.replacen("00", version, 1);
            let headers = told(&[("traceparent", &traceparent), ("tracestate", "a=1")]);
            assert_eq!(headers.get("traceparent").unwrap(), &traceparent);
            assert_eq!(headers.get("tracestate").unwrap(), "a=1");
        }
        assert!(is_traceparent(
            format!("{}-more", SOUND.replacen("00", "cc", 1)).as_bytes()
        ));
    }

    #[test]
    fn a_trace_that_makes_no_sense_is_begun_anew() {
        let unsound = [
            String::new(),
            SOUND.to_uppercase(),
            format!("{SOUND}-more"),
            format!("{}more", SOUND.replacen("00", "cc", 1)),
            SOUND.replacen("00", "ff", 1),
            SOUND.replace('-', "_"),
            SOUND[..54].to_owned(),
            SOUND.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            SOUND.replace("00f067aa0ba902b7", &"0".repeat(16)),
            SOUND.replace("a3ce", "-3ce"),
        ];
        for traceparent in unsound {
            let headers = told(&[("traceparent", &traceparent), ("tracestate", "a=1")]);
            let begun = headers.get("traceparent").unwrap().to_str().unwrap();
            assert!(is_traceparent(begun.as_bytes()), "{traceparent}: {begun}");
            assert!(begun.ends_with("-00") && begun != traceparent);
            assert!(!headers.contains_key("tracestate"));
        }
        let twice = told(&[("traceparent", SOUND), ("traceparent", SOUND)]);
        assert_eq!(twice.get_all("traceparent").count(), 1);
        assert_ne!(twice.get("traceparent").unwrap(), SOUND);
    }

    #[test]
    fn a_clients_request_id_is_kept_if_it_is_short_and_visible() {
        let long = "x".repeat(129);
        for (id, kept) in [
            ("a1/B:2", true),
            (&long[1..], true),
            (&long, false),
            ("a b", false),
            ("", false),
        ] {
            let headers = told(&[("x-request-id", id)]);
            assert_eq!(headers.get("x-request-id").unwrap() == id, kept, "{id}");
            assert!(is_request_id(
                headers.get("x-request-id").unwrap().as_bytes()
            ));
        }
    }

    #[test]
    fn no_two_requests_get_the_same_ids() {
        let (one, other) = (told(&[]), told(&[]));
        for name in ["traceparent", "x-request-id"] {
            assert_ne!(one.get(name).unwrap(), other.get(name).unwrap());
        }
        assert_ne!(
            &one.get("traceparent").unwrap().as_bytes()[3..35],
            one.get("x-request-id").unwrap().as_bytes()
        );
    }

    #[test]
    fn client_node_and_log_are_told_the_same() {
        for lines in [&[("x-request-id", "mine"), ("traceparent", SOUND)][..], &[]] {
            let received = received(lines);
            let ids = Ids::of(&received);
            let mut answer = HeaderMap::new();
            ids.tell_client(&received, &mut answer);
            let id = ids.request_id(&received);
            assert_eq!(answer.get("x-request-id").unwrap(), id);
            assert!(is_request_id(id.as_bytes()));
            assert_eq!(ids.trace_id(&received).len(), 32);
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
        println!("{:?} to make both", began.elapsed() / ROUNDS);
        let (mut node, mut client) = (BytesMut::with_capacity(1024), HeaderMap::new());
        let began = std::time::Instant::now();
        for _ in 0..ROUNDS {
            let ids = Ids::of(std::hint::black_box(&received));
            ids.put(&mut node);
            ids.tell_client(&received, &mut client);
            node.clear();
            client.clear();
        }
        println!("{:?} to make and tell both", began.elapsed() / ROUNDS);
    }
}
