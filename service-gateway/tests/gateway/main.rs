//! The gateway from outside, between clients and nodes that see every byte.

#![allow(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod access_log;
mod admin;
mod admin_hosts;
mod admin_limits;
mod allowed;
mod attempts;
mod awc_client;
mod broken_upstreams;
mod connecting;
mod drain;
mod early_ends;
mod expect;
mod forwarding;
mod framing;
mod health;
mod hedging;
mod http10;
mod limits;
mod logs;
mod metrics;
mod mixed;
mod pipelines;
mod pipelining;
mod process;
mod refused_heads;
mod reuse;
mod routing;
mod smuggling;
mod streaming;
mod support;
mod targets;
mod trace;
mod trust;
mod websocket;
