//! The proxies that are compared, each configured by its documentation for many requests on reused connections.

use std::fmt::Write;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::Context;
use testing::Directory;
use testing::free_port;
use testing::process::Process;
use testing::try_until;
use testing::usage::Usage;

/// A proxy that listens in front of the greeters, and ends with this.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    runs: Runs,
}

enum Runs {
    Gateway(Process),
    Other(Child),
}

impl Peer {
    /// Two workers, upstream connections kept, no access log.
    pub(crate) async fn nginx(
        directory: &Directory,
        greeters: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let servers = lines(greeters, |_, greeter| format!("server {greeter};"));
        let own = directory.file("nginx");
        fs::create_dir_all(&own)?;
        let own = own.display();
        let config = format!(
            "worker_processes 2; daemon off; pid {own}/pid; error_log {own}/log;
            events {{ worker_connections 8000; }}
            http {{
                access_log off; keepalive_requests 1000000000; tcp_nodelay on; client_max_body_size 0;
                client_body_temp_path {own}/body; proxy_temp_path {own}/proxy;
                fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;
                upstream greeters {{ {servers} keepalive 64; keepalive_requests 1000000000; }}
                server {{ listen {address} backlog=4096; location /greeter/ {{
                    proxy_pass http://greeters/; proxy_http_version 1.1;
                    proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                }} }}
            }}"
        );
        let file = directory.file("nginx.conf");
        fs::write(&file, config)?;
        let mut command = Command::new("nginx");
        command
            .arg("-c")
            .arg(file)
            .arg("-e")
            .arg(directory.file("nginx.log"));
        Self::other("nginx", command, address, directory).await
    }

    /// Two threads, upstream connections shared by all clients.
    pub(crate) async fn haproxy(
        directory: &Directory,
        greeters: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let servers = lines(greeters, |number, greeter| {
            format!("    server g{number} {greeter}\n")
        });
        let config = format!(
            "global\n    nbthread 2\n    maxconn 8000\n\
            defaults\n    mode http\n    timeout connect 1s\n    timeout client 75s\n    timeout server 60s\n\
            frontend f\n    bind {address}\n    option forwardfor\n    \
            http-request set-path %[path,regsub(^/greeter,)]\n    default_backend b\n\
            backend b\n    balance roundrobin\n    http-reuse always\n{servers}"
        );
        let file = directory.file("haproxy.cfg");
        fs::write(&file, config)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file);
        Self::other("HAProxy", command, address, directory).await
    }

    /// As it comes: everything on that is on by default.
    pub(crate) async fn gateway(directory: &Directory, registry: &str) -> anyhow::Result<Self> {
        let log = directory.file("gateway.log");
        let flags = [
            "--registry",
            registry,
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ];
        let process = Process::start(&log, "service-gateway", &flags, &[]).await?;
        Ok(Self {
            name: "gateway",
            address: process.address,
            runs: Runs::Gateway(process),
        })
    }

    async fn other(
        name: &'static str,
        mut command: Command,
        address: SocketAddr,
        directory: &Directory,
    ) -> anyhow::Result<Self> {
        let log = File::create(directory.file(&format!("{name}.out")))?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("starting {name}: scripts/bench.sh installs it"))?;
        let peer = Self {
            name,
            address,
            runs: Runs::Other(child),
        };
        let listens = || async { Ok(TcpStream::connect(address).is_ok()) };
        try_until(
            &format!("{name} to listen"),
            Duration::from_secs(5),
            listens,
        )
        .await?;
        Ok(peer)
    }

    /// Of the process that was started, and of the children that work for it.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let id = match &self.runs {
            Runs::Gateway(process) => process.id(),
            Runs::Other(child) => child.id(),
        };
        let mut sum = Usage::of(id)?;
        for child in
            fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?.split_whitespace()
        {
            let usage = Usage::of(child.parse()?)?;
            sum.cpu += usage.cpu;
            sum.memory += usage.memory;
        }
        Ok(sum)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Runs::Other(child) = &mut self.runs {
            // SIGTERM, so that nginx ends its workers too. It may have ended before.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

fn lines(greeters: &[SocketAddr], line: impl Fn(usize, &SocketAddr) -> String) -> String {
    greeters
        .iter()
        .enumerate()
        .fold(String::new(), |mut text, (number, greeter)| {
            let _ = write!(text, "{}", line(number, greeter)); // writing to a String does not fail
            text
        })
}
