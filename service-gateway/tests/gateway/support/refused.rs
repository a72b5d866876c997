use super::{Gateway, Upstream};

/// Sends raw bytes over a connection of their own, and a second request behind them. Returns the
/// status of the first answer, as soon as the second has come or the connection has ended.
pub(crate) async fn status_of(gateway: &Gateway, request: &[u8]) -> u16 {
    let mut client = gateway.connect().await;
    client.send(request).await;
    let status = client.answer("GET").await.status();
    let second = "GET /second HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    if client.try_send(second).await.is_ok() {
        client.rest().await;
    }
    status
}

/// Checks that each of these requests is refused, and that no node sees anything of it.
pub(crate) async fn is_refused_with(status: u16, requests: &[&str]) {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for request in requests {
        assert_eq!(
            status_of(&gateway, request.as_bytes()).await,
            status,
            "{request:.99?}"
        );
        let reached: Vec<_> = upstream
            .requests()
            .into_iter()
            .map(|request| request.start)
            .collect();
        assert!(
            reached.iter().all(|start| start == "GET /second HTTP/1.1"),
            "{request:.99?}: {reached:?}"
        );
    }
}
