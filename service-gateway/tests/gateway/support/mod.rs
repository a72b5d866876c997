//! What the tests share: a gateway, between the scripted clients and nodes of the crate `testing`.

mod gateway;
mod program;
mod refused;

pub(crate) use gateway::{Gateway, greeter};
pub(crate) use program::{Program, help, run, run_in};
pub(crate) use refused::is_refused_with;
pub(crate) use testing::http::requests::status_of;
pub(crate) use testing::http::{
    Full, Message, Peer, Refusing, Upstream, Wire, answers, is_echoed, mixed, requests,
};
pub(crate) use testing::{until, within_limit};
