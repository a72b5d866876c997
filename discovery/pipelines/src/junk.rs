//! Bytes that a server has to refuse.

use fastrand::Rng;

use crate::exchange::{Exchange, Treatment};
use crate::profile::Profile;
use crate::request;

/// Start lines and fields, of which none is a request.
const HEADS: [&str; 12] = [
    "{\"a\":1}\r\n\r\n",
    "}\r\n\r\n",
    "\0\0\0\0\r\n\r\n",
    "G@T / HTTP/1.1\r\nHost: test\r\n\r\n",
    "\u{1f980} / HTTP/1.1\r\nHost: test\r\n\r\n",
    "GET /x HTTP/x.1\r\nHost: test\r\n\r\n",
    "GET /x HTTP/1.1\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: test\r\nx y: z\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: test\r\n: z\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: test\r\nx: a\0b\r\n\r\n",
];

/// Framings with two readings: a server may serve the request or refuse it.
const AMBIGUOUS: [(&str, &str); 2] = [
    (
        "HTTP/1.1",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
    ),
    (
        "HTTP/1.1",
        "Transfer-Encoding: chunked\r\nContent-Length: 300",
    ),
];

/// Framings without a reading.
const FRAMINGS: [&str; 7] = [
    "Content-Length: 3\r\nContent-Length: 4",
    "Content-Length: 3, 4",
    "Content-Length: 3x",
    "Content-Length: -3",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding : chunked",
];

/// Bodies that end within a chunk, or are no chunks.
const CHUNKS: [&str; 8] = [
    "zz\r\nhello\r\n0\r\n\r\n",
    "-1\r\nhello\r\n0\r\n\r\n",
    "5\r\nhelloo\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhel\r\n0\r\n\r\n",
    "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5 5\r\nhello\r\n0\r\n\r\n",
];

/// Bytes that no request begins with.
const SURPLUS: [char; 6] = ['}', '{', '"', '\0', '(', ')'];

/// Generates bytes that a server has to refuse. They are complete, so that it need not wait.
pub(crate) fn generate(
    random: &mut Rng,
    profile: Profile,
    prefix: &str,
    id: &str,
) -> (Vec<u8>, Exchange) {
    let (bytes, name, treatment) = match random.u8(..12) {
        0..5 => {
            let head = HEADS[random.usize(..HEADS.len())];
            (head.to_owned(), "junk", Treatment::Refused)
        }
        5 => {
            let framing = FRAMINGS[random.usize(..FRAMINGS.len())];
            let post = post(profile, prefix, id, "HTTP/1.1", framing);
            (post + "0\r\n\r\n", "a broken framing", Treatment::Refused)
        }
        6 => {
            let (version, framing) = AMBIGUOUS[random.usize(..AMBIGUOUS.len())];
            let post = post(profile, prefix, id, version, framing);
            (
                post + "0\r\n\r\n",
                "an ambiguous framing",
                Treatment::ServedOrRefused,
            )
        }
        7 | 8 => {
            // Behind a body it is one byte more than the length.
            let byte = SURPLUS[random.usize(..SURPLUS.len())];
            let good = request::forbidden(profile, prefix, id);
            (
                format!("{byte}{good}"),
                "a surplus byte",
                Treatment::Refused,
            )
        }
        _ => {
            let post = post(
                profile,
                prefix,
                id,
                "HTTP/1.1",
                "Transfer-Encoding: chunked",
            );
            let good = ["", "3\r\nabc\r\n", "1;x\r\na\r\n"][random.usize(..3)];
            let bad = CHUNKS[random.usize(..CHUNKS.len())];
            (post + good + bad, "a broken chunk", Treatment::Refused)
        }
    };
    let target = profile.reading(id, "POST", b"");
    let exchange = Exchange {
        name: format!("{name}: {:.60}", bytes.escape_debug()),
        id: id.to_owned(),
        method: "POST",
        is_http10: false,
        closes: true,
        may_close: true,
        expects_continue: false,
        is_upgrade: false,
        treatment,
        status: target.status,
        content: target.content,
    };
    (bytes.into_bytes(), exchange)
}

fn post(profile: Profile, prefix: &str, id: &str, version: &str, framing: &str) -> String {
    let path = profile.reading(id, "POST", b"").path;
    let field = profile.id_field();
    format!("POST {prefix}{path} {version}\r\nHost: test\r\n{field}: {id}\r\n{framing}\r\n\r\n")
}
