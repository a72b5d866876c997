use discovery::{Ejection, Endpoint};

/// How the gateway stands to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Up,
    /// It gets no requests because somebody wanted it so.
    Drained,
    Ejected(Ejection),
    /// It vanished from the registry in a way that is not believed yet.
    Unconfirmed,
}

impl Standing {
    /// Of several that are true, the one that says most about who gets requests.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        match endpoint.ejected() {
            _ if endpoint.is_drained() => Self::Drained,
            Some(why) => Self::Ejected(why),
            None if endpoint.is_unconfirmed() => Self::Unconfirmed,
            None => Self::Up,
        }
    }

    /// The name it has for those who read the state.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drained => "drained",
            Self::Ejected(_) => "ejected",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// Why it is set aside, if it is.
    pub(super) fn ejected(self) -> Option<&'static str> {
        match self {
            Self::Ejected(why) => Some(why.as_str()),
            Self::Up | Self::Drained | Self::Unconfirmed => None,
        }
    }
}
