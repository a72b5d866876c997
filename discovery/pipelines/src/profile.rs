//! The targets that a server has, and the right responses to them.

use crate::exchange::Content;
use crate::kind::Kind;

/// The kind of server behind the address under test.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Profile {
    /// A node of this crate, or a proxy in front of nodes.
    #[default]
    Node,
    /// The greeter's endpoints, without a node.
    Greeter,
}

/// The target of a request, and the right response.
pub(crate) struct Target {
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) content: Content,
    /// The server may close the connection instead of reading the request's body.
    pub(crate) ignores_body: bool,
    /// The response may end with the connection.
    pub(crate) ends_connection: bool,
}

impl Target {
    fn new(path: String, status: u16, content: Content) -> Self {
        Self {
            path,
            status,
            content,
            ignores_body: false,
            ends_connection: false,
        }
    }

    fn ignoring_body(mut self) -> Self {
        self.ignores_body = true;
        self
    }
}

impl Profile {
    /// The request field that a server returns in its response.
    pub(crate) fn id_field(self) -> &'static str {
        match self {
            Self::Node => "x-id",
            Self::Greeter => "x-request-id",
        }
    }

    /// Chooses an ordinary target.
    pub(crate) fn choose(
        self,
        random: &mut fastrand::Rng,
        id: &str,
        method: &str,
        body: &[u8],
    ) -> Target {
        match self {
            Self::Node => of_node(Kind::choose(random), id, method, body),
            Self::Greeter => of_greeter(random.u8(..10), id, method, body),
        }
    }

    /// Returns a target whose response begins behind the whole body of the request.
    pub(crate) fn reading(self, id: &str, method: &str, body: &[u8]) -> Target {
        match self {
            Self::Node => of_node(Kind::Sized, id, method, body),
            Self::Greeter => anything(id, method, body),
        }
    }

    /// Returns a target that switches protocols if the request is an upgrade to a WebSocket.
    pub(crate) fn switching(self, id: &str) -> Option<Target> {
        (self == Self::Node).then(|| of_node(Kind::Switching, id, "GET", b""))
    }

    /// Returns the path of a request that must not be processed.
    pub(crate) fn forbidden(self, id: &str) -> String {
        match self {
            Self::Node => format!("/{}/{id}", Kind::Forbidden.name()),
            Self::Greeter => format!("/greet/{id}"),
        }
    }
}

fn of_node(kind: Kind, id: &str, method: &str, body: &[u8]) -> Target {
    let content = Content::Exactly(kind.body(id, method, body));
    let path = format!("/{}/{id}", kind.name());
    Target {
        ends_connection: kind == Kind::Closing,
        ..Target::new(path, kind.status(), content)
    }
}

fn of_greeter(choice: u8, id: &str, method: &str, body: &[u8]) -> Target {
    let containing = |text: String| Content::Containing(vec![text]);
    let is_read = ["GET", "HEAD"].contains(&method);
    match choice {
        0 | 1 if is_read => {
            let greeting = containing(format!("Hello, {id}!"));
            Target::new(format!("/greet/{id}"), 200, greeting).ignoring_body()
        }
        2 if is_read => {
            let lines = (1..=3).map(|n| format!("chunk {n} of 3\n"));
            let lines = Content::Exactly(lines.collect::<String>().into());
            Target::new("/stream?n=3&ms=1".into(), 200, lines).ignoring_body()
        }
        3 if is_read => {
            let bytes = (b'a'..=b'z').cycle().take(150_000).collect();
            Target::new("/bytes/150000".into(), 200, Content::Exactly(bytes)).ignoring_body()
        }
        4 if is_read => {
            let empty = Content::Exactly(Vec::new());
            Target::new("/status/204".into(), 204, empty).ignoring_body()
        }
        5 => {
            let problem = containing("\"status\":404".into());
            Target::new(format!("/missing/{id}"), 404, problem).ignoring_body()
        }
        6 | 7 if method == "POST" => {
            // Its response may begin before the body has arrived, and ends the connection then.
            let echo = Content::Exactly(body.to_vec());
            Target::new("/echo".into(), 200, echo).ignoring_body()
        }
        _ => anything(id, method, body),
    }
}

fn anything(id: &str, method: &str, body: &[u8]) -> Target {
    let texts = [
        format!("\"method\":\"{method}\""),
        format!("/anything/{id}\""),
        format!("\"body_bytes\":{},", body.len()),
    ];
    let content = Content::Containing(texts.into());
    Target::new(format!("/anything/{id}"), 200, content)
}
