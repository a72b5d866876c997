//! Client-side service discovery: services register where they listen, and clients find them there,
//! choose one, and go on when the registry does not.
//!
//! ```text
//!                    NodeRegistry (etcd, Consul, ZooKeeper, memory)
//!   register ──►  /services/greeter/10.0.0.5:8080  ──► watch
//!      │                                                 │ Snapshot: the whole list, every time
//! Registration                                    DiscoveryClient ── View: the last known list
//!  (a lease, kept)                                       │
//!                                                     Resolver ── LoadBalancer ──► Endpoint
//! ```
//!
//! Four ideas, each a type:
//!
//! * A [`ServiceNode`] is one instance of a service: an address and [`Tags`].
//! * A [`NodeRegistry`] does two things, [`register`](NodeRegistry::register) and
//!   [`watch`](NodeRegistry::watch). [`connect`] makes one from a URL.
//! * A [`LoadBalancer`] chooses one of several.
//! * A [`DiscoveryClient`] puts these together: it follows services, remembers them while the
//!   registry is away, and [resolves](DiscoveryClient::resolve).
//!
//! ```
//! use std::time::Duration;
//! use discovery::{DiscoveryClient, Error, ServiceNode, Tags, connect};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let registry = connect(&"memory:".parse()?)?; // or etcd://127.0.0.1:2379
//!
//! // The greeter's side: one node for each process. It stays listed as long as this is kept.
//! let node = ServiceNode::new("greeter".parse()?, ([10, 0, 0, 5], 8080).into());
//! let registration = registry.register(node.with_tags("version=v1".parse()?), Duration::from_secs(10));
//! registration.registered().await;
//!
//! // The gateway's side: one client for all services.
//! let client = DiscoveryClient::new(registry);
//! let endpoint = client.resolve(&"greeter".parse()?, &Tags::new()).await?;
//! assert_eq!(endpoint.address.to_string(), "10.0.0.5:8080");
//!
//! // Only nodes with a certain tag: there are none of version 2.
//! let v2 = client.resolve(&"greeter".parse()?, &"version=v2".parse()?).await;
//! assert!(matches!(v2, Err(Error::NoInstance { .. })));
//!
//! registration.leave().await
//! # }
//! ```
//!
//! # Where to read on
//!
//! The [guide] (中文：[指南](guide_zh)) goes through all this in ten short chapters, and in each something
//! happens: a node joins, a node dies, the registry is away.
//!
//! In the source, values first: `name.rs`, `tags.rs`, `node.rs`, `snapshot.rs`. Then the seam,
//! `registry.rs`, and behind it `registry/memory.rs`, the smallest registry, and `registry/etcd/`:
//! `lease.rs` keeps a node listed, `watch.rs` follows a list; `registry/consul/` and
//! `registry/zookeeper/` have the same two halves. `registration.rs` and `service.rs` hold what all
//! registries need: to try again for ever, and to remember; `removal.rs` doubts a list that lost
//! most of its nodes at once, `network.rs` says where nodes may be, and `ejection.rs` is what a
//! client finds out by itself. `client.rs` and `resolver.rs` are what a caller sees. To write a
//! registry of your own, begin at [`NodeRegistry`](NodeRegistry#a-registry-of-your-own).

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
mod registration;
mod registry;
mod removal;
mod resolver;
mod service;
mod snapshot;
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
pub use registration::{Keeper, Registered, Registration};
#[cfg(feature = "consul")]
pub use registry::ConsulRegistry;
#[cfg(feature = "etcd")]
pub use registry::EtcdRegistry;
#[cfg(feature = "zookeeper")]
pub use registry::ZooKeeperRegistry;
pub use registry::{MemoryRegistry, NodeRegistry, RegistryUrl, SnapshotStream, connect};
pub use resolver::Resolver;
pub use snapshot::Snapshot;
pub use tags::{MAX_TAGS, Tags};
pub use view::View;
