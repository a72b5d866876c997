//! Authentication of clients by etcd, and of etcd by clients.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, Permission, TlsOptions};
use futures_util::StreamExt;
use testing::PATIENCE;
use testing::certificates::Authority;
use testing::etcd::{Etcd, registry_at};
use testing::scene::Scene;
use tokio::time::{Instant, sleep_until, timeout};

/// Starts an etcd with TLS, whose certificate is for `host`.
async fn with_tls(authority: &Authority, host: &str, flags: &[&str]) -> Etcd {
    let (cert, key) = authority.issue(host);
    let own = Identity::from_pem(std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap());
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name(host)
        .identity(own);
    let files = [format!("--cert-file={cert}"), format!("--key-file={key}")];
    let files = files.iter().map(String::as_str);
    let mut etcd = Etcd::not_yet().with_flags(files.chain(flags.iter().copied()));
    etcd.let_in(ConnectOptions::new().with_tls(tls));
    etcd.run().await;
    etcd
}

/// Requires that a node can be registered and found there.
async fn works(url: &str) {
    let scene = Scene::new(registry_at(url));
    let _one = scene.join(1).await;
    scene.lists(&["1"]).await;
}

/// Returns the error of a watch without a snapshot. A timeout is retried, because it does not name the
/// cause: a busy machine may take long to check a password.
async fn refusal(url: &str) -> String {
    let registry = registry_at(url);
    let mut lists = registry.watch(&"greeter".parse().unwrap());
    let said = async {
        loop {
            let error = lists.next().await.unwrap().unwrap_err().to_string();
            if !error.contains("no response within") {
                return error;
            }
        }
    };
    timeout(PATIENCE, said).await.unwrap()
}

#[tokio::test]
async fn nodes_are_found_over_tls() {
    let authority = Authority::new();
    let etcd = with_tls(&authority, "127.0.0.1", &[]).await;
    works(&format!(
        "etcd+tls://{}?ca={}",
        etcd.address(),
        authority.ca()
    ))
    .await;
}

#[tokio::test]
async fn a_server_without_a_trusted_root_is_rejected() {
    let (authority, other) = (Authority::new(), Authority::new());
    let etcd = with_tls(&authority, "127.0.0.1", &[]).await;
    let url = format!("etcd+tls://{}", etcd.address());
    let error = refusal(&format!("{url}?ca={}", other.ca())).await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    // The system's roots, if there are any, did not issue it either.
    let error = refusal(&url).await;
    assert!(
        error.contains("UnknownIssuer") || error.contains("native"),
        "{error}"
    );
    let error = refusal(&format!("{url}?ca={}.not", other.ca())).await;
    assert!(
        error.contains("ca.pem.not") && error.contains("No such file"),
        "{error}"
    );
    let junk = other.write("junk.pem", "no PEM");
    let error = refusal(&format!("{url}?ca={junk}")).await;
    assert!(error.contains("no certificate in /"), "{error}");
    let error = refusal(&format!("etcd://{}", etcd.address())).await;
    assert!(error.contains(&etcd.address()), "{error}");
}

#[tokio::test]
async fn a_renewed_root_needs_no_restart() {
    let (authority, old) = (Authority::new(), Authority::new());
    let etcd = with_tls(&authority, "127.0.0.1", &[]).await;
    let scene = Scene::new(registry_at(&format!(
        "etcd+tls://{}?ca={}",
        etcd.address(),
        old.ca()
    )));
    let one = scene.register(scene.node(1));
    let mut lists = scene.registry.watch(&scene.service);
    let first = timeout(PATIENCE, lists.next()).await.unwrap().unwrap();
    assert!(first.is_err() && !one.is_registered());
    old.write("ca.pem", &authority.pem());
    timeout(PATIENCE, one.registered())
        .await
        .expect("registered");
    scene.lists(&["1"]).await;
}

#[tokio::test]
async fn a_server_name_may_differ_from_the_host() {
    let authority = Authority::new();
    let etcd = with_tls(&authority, "etcd.example", &[]).await;
    let url = format!("etcd+tls://{}?ca={}", etcd.address(), authority.ca());
    let error = refusal(&url).await;
    assert!(error.contains("not valid for name"), "{error}");
    works(&format!("{url}&server-name=etcd.example")).await;
}

#[tokio::test]
async fn a_client_certificate_is_presented() {
    let authority = Authority::new();
    let trust = format!("--trusted-ca-file={}", authority.ca());
    let etcd = with_tls(&authority, "127.0.0.1", &["--client-cert-auth", &trust]).await;
    let (cert, key) = authority.issue("greeter");
    let url = format!("etcd+tls://{}?ca={}", etcd.address(), authority.ca());
    works(&format!("{url}&cert={cert}&key={key}")).await;
    let error = refusal(&url).await;
    // The TLS alert, or the closed connection: whichever arrives first.
    let told = ["Certificate", "closed"].map(|word| error.contains(word));
    assert!(told.contains(&true), "{error}");
}

/// Starts an etcd with the users root, and greeter with the password "p@ss" and the permissions of nodes
/// and clients. Tokens expire after two seconds, and the hash of a password is as cheap as possible.
async fn with_users() -> Etcd {
    let mut etcd = Etcd::not_yet().with_flags(["--auth-token-ttl=2", "--bcrypt-cost=4"]);
    etcd.run().await;
    let mut root = etcd.client().await;
    root.role_add("services").await.unwrap();
    let prefix = Permission::read_write("/services/").with_prefix();
    root.role_grant_permission("services", prefix)
        .await
        .unwrap();
    for (user, role) in [("root", "root"), ("greeter", "services")] {
        root.user_add(user, "p@ss", None).await.unwrap();
        root.user_grant_role(user, role).await.unwrap();
    }
    root.auth_enable().await.unwrap();
    etcd.let_in(ConnectOptions::new().with_user("root", "p@ss"));
    etcd
}

#[tokio::test]
async fn invalid_credentials_are_rejected() {
    let etcd = with_users().await;
    let error = refusal(&format!("etcd://greeter:s3cret@{}", etcd.address())).await;
    assert!(error.contains("authentication failed"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    let error = refusal(&format!("etcd://{}", etcd.address())).await;
    assert!(error.contains("user name is empty"), "{error}");
    let error = refusal(&format!("etcd://greeter:p%40ss@{}/other", etcd.address())).await;
    assert!(error.contains("permission denied"), "{error}");
}

#[tokio::test]
async fn expired_tokens_are_renewed() {
    let etcd = with_users().await;
    let url = format!("etcd://greeter:p%40ss@{}", etcd.address());
    let scene = Scene::new(registry_at(&url)).with_ttl(Duration::from_secs(9));
    let _one = scene.join(1).await;
    scene.lists(&["1"]).await;
    let (created, mut other) = (etcd.created().await, etcd.client().await);
    // The registrar reads its key every three seconds, and needs a new token each time.
    sleep_until(Instant::now() + Duration::from_secs(10)).await;
    let two = scene.join(2).await;
    scene.lists(&["1", "2"]).await;
    two.deregister().await.unwrap();
    scene.lists(&["1"]).await;
    assert_eq!(etcd.created().await, created);
    let expired = other.get("any", None).await.unwrap_err().to_string();
    assert!(expired.contains("invalid auth token"), "{expired}");
}

#[tokio::test]
async fn a_new_password_needs_no_restart() {
    let (files, etcd) = (Authority::new(), with_users().await);
    let password = files.write("password", "old\n");
    let url = format!("etcd://greeter@{}?password-file={password}", etcd.address());
    let scene = Scene::new(registry_at(&url));
    let one = scene.register(scene.node(1));
    let mut lists = scene.registry.watch(&scene.service);
    let first = timeout(PATIENCE, lists.next()).await.unwrap().unwrap();
    assert!(first.is_err() && !one.is_registered());
    files.write("password", "p@ss\n");
    timeout(PATIENCE, one.registered())
        .await
        .expect("registered");
    scene.lists(&["1"]).await;
}
