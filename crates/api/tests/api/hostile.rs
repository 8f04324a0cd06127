//! What must not get in, whatever is sent. Every refusal is a problem, and nothing breaks.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::json;
use tower::ServiceExt;

use crate::common::*;

#[tokio::test]
async fn ids_and_names_cannot_leave_their_place() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let long = "a".repeat(5000);
    for name in [
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e%2fqueue.db",
        "..",
        ".",
        "%00",
        "%0d%0a",
        "%c2%85",
        "%e2%80%a8",
        "'%20OR%201=1--",
        "\"%3B%20DROP%20TABLE%20message",
        "%FF%FE",
        "0000000000000-99999999",
        "0000000000000--1",
        "0000000000000-+1",
        "zzzzzzzzzzzzz",
        "*",
        &long,
    ] {
        for kind in ["queue", "orgs", "credentials", "keys", "domains", "routes", "smarthosts"] {
            let answer = get(&router, &format!("/api/{kind}/{name}")).await;
            assert!(
                ["invalid", "not-found"].contains(&answer.problem().as_str()),
                "{kind}/{name}: {}",
                answer.json
            );
        }
        let raw = get(&router, &format!("/api/queue/{name}/raw")).await;
        assert!(raw.status.is_client_error(), "{name}");
    }
}

#[tokio::test]
async fn bad_bodies_are_problems() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let deep = "[".repeat(100_000);
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(2 << 20));
    for body in ["", "{", "null", "[]", "\u{0}", "{\"name\":5}", "{\"name\":\"a\",\"nmae\":1}", &deep, &large]
    {
        for path in ["/api/orgs", "/api/credentials", "/api/routes", "/api/queue/actions/hold", "/api/backup"]
        {
            let answer = send(&router, Method::POST, path, "application/json", body.to_owned()).await;
            assert!(["invalid", "too-large"].contains(&answer.problem().as_str()), "{path} {:.20}", body);
        }
    }
    let form = send(&router, Method::POST, "/api/orgs", "text/plain", "name=a").await;
    assert_eq!(form.problem(), "invalid", "a page in a browser cannot post JSON by a form");
    assert_eq!(send(&router, Method::PUT, "/api/orgs", "", "").await.problem(), "method-not-allowed");
    assert_eq!(get(&router, "/api").await.problem(), "not-found");
    assert_eq!(get(&router, "//api/orgs").await.problem(), "not-found");
}

#[tokio::test]
async fn values_that_could_become_lines_or_sql_are_refused() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    for name in ["a\r\nb", "a\u{0}b", "a\u{2028}b", "a b", "", "\u{1b}[2J", &"a".repeat(300), "ａｂｃ"] {
        for (path, body) in [
            ("/api/credentials", json!({ "name": name })),
            ("/api/orgs", json!({ "name": name })),
            ("/api/keys", json!({ "name": name })),
            ("/api/domains", json!({ "name": name })),
            ("/api/smarthosts", json!({ "name": name, "hosts": ["h:25"] })),
        ] {
            assert_eq!(post(&router, path, body).await.problem(), "invalid", "{path} {name:?}");
        }
    }
    for host in ["h", "h:0", "h:99999", "h\r\n:25", "h /:25", "[::1:25"] {
        let body = json!({ "name": "up", "hosts": [host] });
        assert_eq!(post(&router, "/api/smarthosts", body).await.problem(), "invalid", "{host:?}");
    }
    for secret in ["a\r\nb", "a\u{0}b"] {
        let body = json!({ "name": "up", "hosts": ["h:25"], "username": "u", "password": secret });
        assert_eq!(post(&router, "/api/smarthosts", body).await.problem(), "invalid", "{secret:?}");
    }
    for to in
        ["maildir:/var/../etc/{user}", "maildir:relative", "file:/etc/passwd", "mx:", "smtp://h", "mx:a b"]
    {
        let answer = post(&router, "/api/routes", json!({ "to": to })).await;
        assert_eq!(answer.problem(), "invalid", "{to}");
    }
    for query in [
        "state=sent",
        "id=1",
        "after=x",
        "after=zzzzzzzzzzzzz-1",
        "older_than_s=-1",
        "older_than_s=18446744073709551615",
        "limit=many",
        "from=a%0d%0ab",
        "org=' OR 1=1 --",
        "sort=id;DROP TABLE",
    ] {
        let answer =
            get(&router, &format!("/api/queue?{}", query.replace(' ', "%20").replace('\'', "%27"))).await;
        assert!(["invalid", "not-found"].contains(&answer.problem().as_str()), "{query}: {}", answer.json);
    }
    // Filters are compared, never run.
    admit(&stand, "ann@example.com", "bob@example.org").await;
    for text in ["%27%20OR%20%271%27=%271", "%25", "_", "bob@example.org%27--", "%2A%27"] {
        for field in ["from", "to", "domain", "reason"] {
            let answer = get(&router, &format!("/api/queue?{field}={text}")).await;
            assert_eq!(
                (answer.status, &answer.json["items"]),
                (StatusCode::OK, &json!([])),
                "{field}={text}"
            );
        }
    }
    for query in ["since=yesterday", "after=x", "id=x", "limit=x", "nonsense=1"] {
        assert_eq!(get(&router, &format!("/api/trace?{query}")).await.problem(), "invalid", "{query}");
    }
}

#[tokio::test]
async fn nobody_is_answered_who_is_not_known() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let request = Request::post("/api/orgs").header("content-type", "application/json");
    let request = request.body(Body::from("{\"name\":\"shop\"}")).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert!(stand.directory.snapshot().org_named("shop").is_none());
}

#[tokio::test]
async fn a_backup_goes_to_an_absolute_path_that_is_empty() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(post(&router, "/api/backup", json!({ "to": "relative" })).await.problem(), "invalid");
    assert_eq!(post(&router, "/api/backup", json!({ "to": "/tmp/a\u{0}b" })).await.problem(), "invalid");
    std::fs::write(dir.path().join("there"), "x").unwrap();
    let answer = post(&router, "/api/backup", json!({ "to": dir.path() })).await;
    assert_eq!(answer.problem(), "conflict");
    let answer = post(&router, "/api/backup", json!({ "to": dir.path().join("new") })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert!(post(&router, "/api/verify", json!({})).await.json["database"].as_array().unwrap().is_empty());
}
