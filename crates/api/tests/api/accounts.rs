//! Organisations, credentials, keys, domains, routes, smart hosts.

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::common::*;

#[tokio::test]
async fn a_credential_is_made_shown_changed_and_removed() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let made =
        post(&router, "/api/credentials", json!({ "name": "Printer", "from_domains": ["example.com"] }))
            .await;
    assert_eq!(made.status, StatusCode::CREATED);
    let password = made.json["password"].as_str().unwrap().to_owned();
    assert!(password.len() >= 22, "128 bits at least");
    assert_eq!(made.json["credential"]["org"], "default");
    // Login is whatever the case; the password is never shown again.
    let shown = get(&router, "/api/credentials/printer").await;
    assert_eq!(shown.json["name"], "Printer");
    assert!(!String::from_utf8(shown.bytes).unwrap().contains(&password));
    let again = post(&router, "/api/credentials", json!({ "name": "printer" })).await;
    assert_eq!(again.problem(), "conflict");

    let change = json!({ "password": "a chosen one, long enough", "enabled": false }).to_string();
    let changed = send(&router, Method::PATCH, "/api/credentials/printer", "application/json", change).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.json);
    assert_eq!(changed.json["password"], serde_json::Value::Null, "a chosen one is not given back");
    assert_eq!(changed.json["credential"]["enabled"], false);
    assert_eq!(changed.json["credential"]["from_domains"], json!(["example.com"]));

    let gone = send(&router, Method::DELETE, "/api/credentials/printer", "", "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(get(&router, "/api/credentials/printer").await.problem(), "not-found");
    assert_eq!(stand.asked.lock().directory_changed, 3);

    // All of it is on record, with who did it.
    let audit = get(&router, "/api/audit").await;
    let by: Vec<_> = audit.json["items"].as_array().unwrap().iter().map(|e| e["by"].clone()).collect();
    assert_eq!(by.iter().filter(|by| *by == "ann (uid 7)").count(), 3, "{}", audit.json);
    assert!(!audit.json.to_string().contains(&password));
}

#[tokio::test]
async fn listings_come_in_pages_that_lose_nothing() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    for n in 0..25 {
        let name = format!("{}{n:02}", if n % 2 == 0 { "U" } else { "u" });
        let made = post(&router, "/api/credentials", json!({ "name": name })).await;
        assert_eq!(made.status, StatusCode::CREATED);
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&router, &format!("/api/credentials?limit=10{after}")).await;
        let items = page.json["items"].as_array().unwrap();
        assert!(items.len() <= 10);
        seen.extend(items.iter().map(|c| c["name"].as_str().unwrap().to_lowercase()));
        match page.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..25).map(|n| format!("u{n:02}")).collect::<Vec<_>>());
    let none = get(&router, "/api/credentials?org=nobody").await;
    assert_eq!(none.problem(), "not-found");
}

#[tokio::test]
async fn organisations_domains_and_keys() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    assert_eq!(get(&router, "/api/orgs").await.json["items"][0]["name"], "default");
    assert_eq!(post(&router, "/api/orgs", json!({ "name": "shop" })).await.status, StatusCode::CREATED);
    let domain = post(&router, "/api/domains", json!({ "name": "Shop.Example", "org": "shop" })).await;
    assert_eq!((domain.status, &domain.json["name"]), (StatusCode::CREATED, &json!("shop.example")));
    assert_eq!(get(&router, "/api/domains?org=shop").await.json["items"].as_array().unwrap().len(), 1);
    let key = post(&router, "/api/keys", json!({ "name": "web", "org": "shop", "scope": "read" })).await;
    assert!(key.json["secret"].as_str().unwrap().starts_with("ph_"), "{}", key.json);
    assert_eq!(post(&router, "/api/keys", json!({ "name": "x", "scope": "all" })).await.problem(), "invalid");
    let state = json!({ "state": "suspended" }).to_string();
    let changed = send(&router, Method::PATCH, "/api/orgs/shop", "application/json", state).await;
    assert_eq!(changed.json["state"], "suspended");
    let full = send(&router, Method::DELETE, "/api/orgs/shop", "", "").await;
    assert_eq!(full.problem(), "conflict", "it has a domain and a key");
    for path in ["/api/domains/shop.example", "/api/keys/web", "/api/orgs/shop"] {
        assert_eq!(
            send(&router, Method::DELETE, path, "", "").await.status,
            StatusCode::NO_CONTENT,
            "{path}"
        );
    }
    assert_eq!(send(&router, Method::DELETE, "/api/orgs/default", "", "").await.problem(), "invalid");
}

#[tokio::test]
async fn routes_and_smart_hosts_of_the_file_are_read_only() {
    let stand = stand().await;
    let file_route = directory::NewRoute {
        domains: vec!["file.example".parse().unwrap()],
        senders: Vec::new(),
        to: directory::RouteTarget::Mx,
    };
    stand.directory.set_config(vec![file_route], Vec::new()).await.unwrap();
    let router = api::router(stand.clone());
    let lost = post(&router, "/api/routes", json!({ "to": "smarthost:up" })).await;
    assert_eq!(lost.problem(), "not-found");
    let host = json!({ "name": "up", "hosts": ["smtp.example:587"], "username": "u", "password": "hunter2" });
    let made = post(&router, "/api/smarthosts", host).await;
    assert_eq!((made.status, &made.json["has_password"]), (StatusCode::CREATED, &json!(true)));
    assert!(!made.json.to_string().contains("hunter2"));
    let route =
        post(&router, "/api/routes", json!({ "domains": ["*.example.org"], "to": "smarthost:up" })).await;
    assert_eq!(route.status, StatusCode::CREATED, "{}", route.json);
    let id = route.json["id"].as_str().unwrap().to_owned();
    let first = json!({ "senders": ["*@a.example"], "to": "discard", "before": id });
    assert_eq!(post(&router, "/api/routes", first).await.status, StatusCode::CREATED);
    let all = get(&router, "/api/routes").await;
    let order: Vec<_> =
        all.json["items"].as_array().unwrap().iter().map(|r| r["to"].as_str().unwrap()).collect();
    assert_eq!(order, ["mx", "discard", "smarthost:up"]);
    assert_eq!(all.json["items"][0]["source"], "config");
    let config = send(&router, Method::DELETE, "/api/routes/config-1", "", "").await;
    assert_eq!(config.problem(), "conflict");
    let used = send(&router, Method::DELETE, "/api/smarthosts/up", "", "").await;
    assert_eq!(used.problem(), "conflict", "a route leads there");
    assert_eq!(post(&router, "/api/smarthosts/up/probe", json!({})).await.json["name"], "up");
    assert_eq!(post(&router, "/api/smarthosts/down/probe", json!({})).await.problem(), "not-found");
}
