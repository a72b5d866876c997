//! Cost of resolving, from a resolver to an endpoint in flight and back: with 3, 100 and 10 000 nodes, with
//! and without tags, with one in ten ejected, on one thread and on two. It should allocate nothing. `scripts/bench.sh resolve` runs it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use discovery::{
    Balancer, DiscoveryClient, Ejection, MemoryRegistry, NodeRegistry, Registration, Resolver,
    ServiceNode, Tags,
};
use divan::{AllocProfiler, Bencher};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const NODES: [u32; 3] = [3, 100, 10_000];

const THREADS: [usize; 2] = [1, 2];

fn main() {
    divan::main();
}

#[divan::bench(args = NODES, threads = THREADS, sample_count = 50, sample_size = 1000)]
fn round_robin(bencher: Bencher, nodes: u32) {
    resolve(bencher, nodes, Balancer::RoundRobin, "", false);
}

#[divan::bench(args = NODES, threads = THREADS, sample_count = 50, sample_size = 1000)]
fn round_robin_with_tags(bencher: Bencher, nodes: u32) {
    resolve(bencher, nodes, Balancer::RoundRobin, "version=v1", false);
}

#[divan::bench(args = NODES, threads = THREADS, sample_count = 50, sample_size = 1000)]
fn round_robin_one_in_ten_ejected(bencher: Bencher, nodes: u32) {
    resolve(bencher, nodes, Balancer::RoundRobin, "", true);
}

#[divan::bench(args = NODES, threads = THREADS, sample_count = 50, sample_size = 1000)]
fn random(bencher: Bencher, nodes: u32) {
    resolve(bencher, nodes, Balancer::Random, "", false);
}

#[divan::bench(args = NODES, threads = THREADS, sample_count = 50, sample_size = 1000)]
fn least_request(bencher: Bencher, nodes: u32) {
    resolve(bencher, nodes, Balancer::LeastRequest, "", false);
}

#[divan::bench(args = NODES, threads = THREADS, sample_count = 50, sample_size = 1000)]
fn ip_hash(bencher: Bencher, nodes: u32) {
    resolve(bencher, nodes, Balancer::IpHash, "", false);
}

#[divan::bench(args = NODES, threads = THREADS, sample_count = 50, sample_size = 1000)]
fn weighted(bencher: Bencher, nodes: u32) {
    resolve(bencher, nodes, Balancer::Weighted, "", false);
}

fn resolve(bencher: Bencher, nodes: u32, balancer: Balancer, tags: &str, is_ejecting: bool) {
    let service = Service::start(nodes, balancer, tags, is_ejecting);
    bencher.bench(|| {
        let key = fastrand::u32(..).to_be_bytes();
        service
            .resolver
            .resolve(Some(&key))
            .expect("there are nodes")
    });
}

/// A service with `nodes` nodes, half of them with version v1.
struct Service {
    resolver: Arc<Resolver>,
    _registrations: Vec<Registration>,
    _runtime: Runtime,
}

impl Service {
    fn start(nodes: u32, balancer: Balancer, tags: &str, is_ejecting: bool) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let tags: Tags = tags.parse().expect("tags");
        let (resolver, registrations) = runtime.block_on(async {
            let registry = Arc::new(MemoryRegistry::default());
            let registrations: Vec<_> = (0..nodes)
                .map(|number| register(&registry, number))
                .collect();
            for registration in &registrations {
                registration.registered().await;
            }
            let client = DiscoveryClient::new(registry).with_balancer(balancer);
            let name = "greeter".parse().expect("a name");
            let resolver = client.resolver(&name, &tags);
            resolver.ready().await.expect("a snapshot");
            let view = client.view(&name).expect("a snapshot");
            if is_ejecting {
                let one_in_ten = view.endpoints().iter().step_by(10);
                for endpoint in one_in_ten {
                    endpoint.eject(Ejection::Failing);
                }
            }
            (resolver, registrations)
        });
        Self {
            resolver,
            _registrations: registrations,
            _runtime: runtime,
        }
    }
}

fn register(registry: &MemoryRegistry, number: u32) -> Registration {
    let address = SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + number), 8080));
    let tags = format!("version=v{},weight={}", 1 + number % 2, 1 + number % 5);
    let node = ServiceNode::new("greeter".parse().expect("a name"), address);
    registry.register(
        node.with_tags(tags.parse().expect("tags")),
        Duration::from_secs(10),
    )
}
