use super::{Gateway, Upstream, status_of};

/// Checks that each of these requests is refused, and that no node sees anything of it.
pub(crate) async fn is_refused_with(status: u16, requests: &[impl AsRef<str>]) {
    let upstream = Upstream::saying("hi").await;
    let gateway = Gateway::of(&[&upstream]).await;
    for request in requests.iter().map(AsRef::as_ref) {
        assert_eq!(
            status_of(gateway.connect().await, request.as_bytes()).await,
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
