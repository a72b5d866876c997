use actix_web::http::{Method, header};
use awc::Client;
use serde_json::{Value, json};
use testing::http::Wire;

use crate::started::Started;

#[actix_web::test]
async fn a_greeting_names_the_instance_and_its_version() {
    let greeter = Started::new(&["--tag", "version=v1,region=cn"]);
    let mut response = Client::new()
        .get(greeter.url("/greet/Ada"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers().get("content-type").unwrap(),
        "application/json"
    );
    let expected = format!(
        r#"{{"message":"Hello, Ada!","instance":"{}","version":"v1"}}"#,
        greeter.address
    );
    assert_eq!(response.body().await.unwrap(), expected);
}

#[actix_web::test]
async fn a_greeting_without_a_version_has_the_same_fields() {
    let greeter = Started::new(&[]);
    let request = Client::new().get(greeter.url("/greet/J%C3%BCrgen%20%22X%22"));
    let greeting: Value = request.send().await.unwrap().json().await.unwrap();
    let instance = greeter.address.to_string();
    let expected =
        json!({"message": "Hello, Jürgen \"X\"!", "instance": instance, "version": null});
    assert_eq!(greeting, expected);
}

#[actix_web::test]
async fn head_is_answered_as_get_is_but_without_a_body() {
    let greeter = Started::new(&[]);
    let mut wire = Wire::connect(greeter.address).await;
    let greeting = format!("content-length: {}", 54 + greeter.address.to_string().len());
    for (target, line) in [
        ("/greet/Ada", greeting.as_str()),
        ("/health", "content-length: 20"),
        ("/status/418", "418 I'm a teapot"),
        ("/slow?ms=1", "content-length: 15"),
        ("/bytes/10737418240", "content-length: 10737418240"),
        ("/stream?n=1000&ms=600000", "transfer-encoding: chunked"),
        ("/nope", "404 Not Found"),
    ] {
        wire.send(&format!("HEAD {target} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        let head = wire.read_to("\r\n\r\n").await;
        // A body would be where the next head is expected.
        assert!(head.starts_with("HTTP/1.1 "), "{target}: {head}");
        assert!(head.contains(line), "{target}: {head}");
    }
}

#[actix_web::test]
async fn what_is_wrong_with_a_request_is_said_as_a_problem() {
    let greeter = Started::new(&[]);
    for (method, target, status, title, detail) in [
        (Method::GET, "/nope", 404, "Not Found", "/nope"),
        (Method::GET, "/", 404, "Not Found", "/"),
        (Method::GET, "/slow", 400, "Bad Request", "ms"),
        (Method::GET, "/slow?ms=-1", 400, "Bad Request", "digit"),
        (
            Method::GET,
            "/slow?ms=600001",
            400,
            "Bad Request",
            "0 to 600000",
        ),
        (Method::GET, "/stream?n=x&ms=1", 400, "Bad Request", "digit"),
        (Method::GET, "/status/100", 400, "Bad Request", "200 to 599"),
        (Method::GET, "/status/600", 400, "Bad Request", "200 to 599"),
        (Method::GET, "/status/teapot", 400, "Bad Request", "teapot"),
        (
            Method::GET,
            "/bytes/10737418241",
            400,
            "Bad Request",
            "0 to 10737418240",
        ),
        (Method::GET, "/ws", 400, "Bad Request", "upgrade"),
        (
            Method::DELETE,
            "/health",
            405,
            "Method Not Allowed",
            "GET, HEAD",
        ),
        (Method::GET, "/echo", 405, "Method Not Allowed", "POST"),
    ] {
        let request = Client::new().request(method, greeter.url(target));
        let mut response = request.send().await.unwrap();
        let problem: Value = response.json().await.unwrap();
        let kind = response.headers().get(header::CONTENT_TYPE).unwrap();
        assert_eq!(kind, "application/problem+json", "{target}");
        assert_eq!(response.status(), status, "{target}");
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["title"], title);
        assert_eq!(problem["status"], status);
        assert!(
            problem["detail"].as_str().unwrap().contains(detail),
            "{problem}"
        );
        let allow = response.headers().get(header::ALLOW);
        assert_eq!(
            allow.is_some_and(|allow| allow == detail),
            status == 405,
            "{target}"
        );
    }
}

#[actix_web::test]
async fn every_answer_carries_the_requests_id() {
    let greeter = Started::new(&[]);
    for target in ["/greet/Ada", "/status/204", "/nope", "/slow", "/echo"] {
        let request = Client::new().get(greeter.url(target));
        let response = request
            .insert_header(("x-request-id", "a1"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            response.headers().get("x-request-id").unwrap(),
            "a1",
            "{target}"
        );
    }
    let response = Client::new()
        .get(greeter.url("/greet/Ada"))
        .send()
        .await
        .unwrap();
    assert!(!response.headers().contains_key("x-request-id"));
}

#[actix_web::test]
async fn statuses_without_a_body_leave_the_connection_in_order() {
    let greeter = Started::new(&[]);
    let mut wire = Wire::connect(greeter.address).await;
    for code in ["204", "304", "205", "200", "404", "599"] {
        wire.send(&format!("GET /status/{code} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        let head = wire.read_to("\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {code}")), "{head}");
        assert!(
            !head.contains("transfer-encoding") && !head.contains("close"),
            "{head}"
        );
        let has_length = head.contains("content-length: 0");
        assert_eq!(has_length, !["204", "304"].contains(&code), "{head}");
    }
}

#[actix_web::test]
async fn anything_shows_the_request_as_it_arrived() {
    let greeter = Started::new(&[]);
    let mut wire = Wire::connect(greeter.address).await;
    wire.send("PATCH /anything/a%20b/../c?d=%26&e HTTP/1.1\r\nHost: x\r\nB: 2\r\nA: 1\r\nb: 3\r\n")
        .await;
    wire.send(
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    )
    .await;
    wire.read_to("\r\n\r\n").await;
    let mirror: Value = serde_json::from_str(&wire.read_to_close().await).unwrap();
    assert_eq!(mirror["method"], "PATCH");
    assert_eq!(mirror["target"], "/anything/a%20b/../c?d=%26&e");
    assert_eq!(mirror["body_bytes"], 5);
    let headers = json!([
        ["a", "1"],
        ["b", "2"],
        ["b", "3"],
        ["connection", "close"],
        ["host", "x"],
        ["transfer-encoding", "chunked"]
    ]);
    assert_eq!(mirror["headers"], headers);
}
