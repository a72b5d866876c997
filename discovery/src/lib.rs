//! Client-side service discovery: services register their addresses, clients watch them, choose one for
//! each request, and keep working while the registry is down.
//!
//! ```text
//!                    NodeRegistry (etcd, Consul, ZooKeeper, memory)
//!   register ──►  /services/greeter/10.0.0.5:8080  ──► watch
//!      │                                                 │ Snapshot: all nodes, every time
//! Registration                                    DiscoveryClient ── View: the last known endpoints
//!  (a lease, renewed)                                    │
//!                                                     Resolver ── LoadBalancer ──► Endpoint
//! ```
//!
//! Four concepts, each a type:
//!
//! * A [`ServiceNode`] is one instance of a service: an address and [`Tags`].
//! * A [`NodeRegistry`] does two things, [`register`](NodeRegistry::register) and
//!   [`watch`](NodeRegistry::watch). [`connect`] creates one from a URL.
//! * A [`LoadBalancer`] chooses one of several endpoints.
//! * A [`DiscoveryClient`] combines these: it watches services, serves the last known nodes while the
//!   registry is disconnected, ejects outliers, and [resolves](DiscoveryClient::resolve).
//!
//! ```
//! use std::time::Duration;
//! use discovery::{DiscoveryClient, Error, ServiceNode, Tags, connect};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let registry = connect(&"memory:".parse()?)?; // or etcd://127.0.0.1:2379
//!
//! // The greeter's side: one node per process, registered for as long as this value lives.
//! let node = ServiceNode::new("greeter".parse()?, ([10, 0, 0, 5], 8080).into());
//! let registration = registry.register(node.with_tags("version=v1".parse()?), Duration::from_secs(10));
//! registration.registered().await;
//!
//! // The gateway's side: one client for all services.
//! let client = DiscoveryClient::new(registry);
//! let endpoint = client.resolve(&"greeter".parse()?, &Tags::new()).await?;
//! assert_eq!(endpoint.address.to_string(), "10.0.0.5:8080");
//!
//! // Only nodes with a certain tag: none has version 2.
//! let v2 = client.resolve(&"greeter".parse()?, &"version=v2".parse()?).await;
//! assert!(matches!(v2, Err(Error::NoInstance { .. })));
//!
//! registration.deregister().await
//! # }
//! ```
//!
//! # Where to read on
//!
//! The [guide] (中文：[指南](guide_zh)) goes through all this in ten short chapters, and in each something
//! happens: a node is added, a node dies, the registry is down.
//!
//! The source, from the values to the client:
//!
//! | file | content |
//! |---|---|
//! | `name.rs`, `tags.rs`, `node.rs`, `snapshot.rs` | the values: parsed once, valid from then on |
//! | `parse.rs`, `error.rs` | the error of a text, and that of everything else |
//! | `network.rs` | which addresses a node may have |
//! | `registry.rs` | the interface of a registry; `connect` |
//! | `registry/memory.rs` | the smallest registry |
//! | `registry/etcd/` | `lease.rs` keeps a key, `watch.rs` streams snapshots, `connection.rs` fails over |
//! | `registry/consul/`, `registry/zookeeper/` | the same two halves for other servers |
//! | `registry/entries.rs`, `url.rs`, `access.rs` | what registries share: folding entries, URLs, credentials |
//! | `registration.rs`, `backoff.rs` | keeping a node registered, with retries |
//! | `service.rs`, `removal.rs`, `view.rs` | watching a service: the task, mass-removal protection, the result |
//! | `endpoint.rs`, `state.rs`, `ejection.rs` | a node as a client experiences it, and outlier detection |
//! | `balancer.rs`, `balancer/` | the load balancers |
//! | `resolver.rs`, `client.rs` | choosing an endpoint; what a caller uses |
//!
//! To write a registry of your own, begin at [`NodeRegistry`](NodeRegistry#a-registry-of-your-own).

/// The second part of the article: from one registry to a client with tests, in ten chapters. [中文版](guide_zh)
#[cfg(doc)]
#[doc = ""]
#[doc = include_str!("guide.md")]
pub mod guide {}

/// 教程的下篇：从一个注册中心，到一个带测试的客户端，共十章。[English](guide)
#[cfg(doc)]
#[doc = ""]
#[doc = include_str!("guide.zh-CN.md")]
pub mod guide_zh {}

mod backoff;
mod balancer;
mod client;
mod ejection;
mod endpoint;
mod error;
mod name;
mod network;
mod node;
mod parse;
mod registration;
mod registry;
mod removal;
mod resolver;
mod service;
mod snapshot;
mod state;
mod tags;
mod view;

pub use balancer::{Balancer, IpHash, LeastRequest, LoadBalancer, Random, RoundRobin, Weighted};
pub use client::DiscoveryClient;
pub use ejection::{Ejection, ProbeKind};
pub use endpoint::{Endpoint, InFlight, Traffic};
pub use error::Error;
pub use name::ServiceName;
pub use network::{Network, is_for_services};
pub use node::{MAX_VALUE_BYTES, ServiceNode};
pub use parse::ParseError;
pub use registration::{Registrar, Registration, RegistrationStatus};
#[cfg(feature = "consul")]
pub use registry::ConsulRegistry;
#[cfg(feature = "etcd")]
pub use registry::EtcdRegistry;
#[cfg(feature = "zookeeper")]
pub use registry::ZooKeeperRegistry;
pub use registry::{MemoryRegistry, NodeRegistry, RegistryUrl, SnapshotStream, connect};
pub use resolver::Resolver;
pub use snapshot::Snapshot;
pub use state::NodeState;
pub use tags::{MAX_TAGS, Tags};
pub use view::View;
