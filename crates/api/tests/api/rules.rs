//! Rules, suspensions, suppressions, paths, and changes of the queue by stream, site and source.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use store::Action;

use crate::common::*;

async fn put(router: &axum::Router, path: &str, body: Value) -> Answer {
    send(router, Method::PUT, path, "application/json", body.to_string()).await
}

async fn delete(router: &axum::Router, path: &str) -> Answer {
    send(router, Method::DELETE, path, "text/plain", axum::body::Body::empty()).await
}

#[tokio::test]
async fn rules_are_added_listed_replaced_and_removed() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let fast = json!({ "name": "fast", "ipv4": "192.0.2.1", "proxy": "socks5://me:hunter2@127.0.0.1:1080" });
    let made = post(&router, "/api/sources", fast.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    assert_eq!((&made.json["id"], &made.json["kept"]), (&json!("fast"), &json!("directory")));
    assert!(!made.json.to_string().contains("hunter2"));
    assert_eq!(post(&router, "/api/sources", fast).await.problem(), "conflict");
    let pool = post(&router, "/api/pools", json!({ "name": "news", "sources": { "fast": 3 } })).await;
    assert_eq!(pool.status, StatusCode::CREATED);
    let first = post(&router, "/api/egress", json!({ "pool": "news", "streams": ["bulk"] })).await;
    let id = first.json["id"].as_str().unwrap().to_owned();
    post(&router, "/api/egress", json!({ "pool": "default", "before": id })).await;
    let listed = get(&router, "/api/egress").await.json;
    let pools: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|e| &e["pool"]).collect();
    assert_eq!(pools, ["default", "news"]);
    let page = get(&router, "/api/egress?limit=1").await.json;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert!(page["next"].is_string());
    let set =
        put(&router, &format!("/api/egress/{id}"), json!({ "pool": "news", "domains": ["*.example"] })).await;
    assert_eq!((&set.json["streams"], &set.json["domains"]), (&json!([]), &json!(["*.example"])));
    assert_eq!(get(&router, &format!("/api/egress/{id}")).await.json, set.json);
    assert_eq!(delete(&router, "/api/pools/news").await.problem(), "conflict");
    assert_eq!(delete(&router, &format!("/api/egress/{id}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(get(&router, &format!("/api/egress/{id}")).await.problem(), "not-found");
    assert_eq!(stand.asked.lock().directory_changed, 6);
}

#[tokio::test]
async fn nonsense_in_rules_is_told() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    for (path, body) in [
        ("/api/sources", json!({ "ipv4": "192.0.2.1" })),
        ("/api/sources", json!({ "name": 5 })),
        ("/api/sources", json!({ "name": "a", "ipv4": "192.0.2.300" })),
        ("/api/sources", json!({ "name": "a", "colour": "red" })),
        ("/api/sources", json!({ "name": "a", "proxy_password_file": "/etc/passwd" })),
        ("/api/shapes", json!({ "name": "a", "connections": 1 })),
        ("/api/shapes", json!({ "connections": 0 })),
        ("/api/ceilings", json!({ "rate": "1/1s" })),
        ("/api/tls-policies", json!({ "domains": ["a.example"], "ca_file": "relative.pem" })),
        ("/api/aliases", json!({ "from": "x", "to": ["a@b.example"] })),
        ("/api/rewrites", json!({ "pattern": "(", "replace": "" })),
        ("/api/suspensions", json!({})),
        ("/api/suspensions", json!({ "org": "default", "until": "yesterday" })),
        ("/api/suspensions", json!({ "org": "default", "until": "2001-01-01T00:00:00Z" })),
        ("/api/suppressions", json!({ "address": "nobody" })),
    ] {
        let answer = post(&router, path, body.clone()).await;
        assert_eq!(answer.problem(), "invalid", "{path} {body} {}", answer.json);
    }
    assert_eq!(
        post(&router, "/api/pools", json!({ "name": "p", "sources": { "none": 1 } })).await.problem(),
        "not-found"
    );
    assert_eq!(
        put(&router, "/api/pools/none", json!({ "sources": { "default": 1 } })).await.problem(),
        "not-found"
    );
    assert_eq!(get(&router, "/api/suppressions?after=x").await.problem(), "invalid");
    assert_eq!(stand.asked.lock().directory_changed, 0);
}

#[tokio::test]
async fn mail_is_suspended_and_resumed() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let made =
        post(&router, "/api/suspensions", json!({ "site": "gmail", "stream": "bulk", "reason": "busy" }))
            .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    assert_eq!(made.json["by"], "ann (uid 7)");
    assert!(made.json["since"].as_str().unwrap().ends_with('Z'));
    let all =
        post(&router, "/api/suspensions", json!({ "all": true, "until": "2100-01-01T00:00:00Z" })).await;
    assert_eq!(all.json["until"], "2100-01-01T00:00:00.000Z");
    let listed = get(&router, "/api/suspensions").await.json;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let id = made.json["id"].as_str().unwrap();
    assert_eq!(delete(&router, &format!("/api/suspensions/{id}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete(&router, &format!("/api/suspensions/{id}")).await.problem(), "not-found");
    let record = get(&router, "/api/audit?what=suspension").await.json;
    let actions: Vec<&Value> = record["items"].as_array().unwrap().iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, ["remove", "add", "add"]);
}

#[tokio::test]
async fn what_a_suspension_stops_is_told_before_and_after() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    for to in ["bob@g.example", "ann@g.example", "bob@other.example"] {
        admit(&stand, "ann@example.com", to).await;
    }
    let ask = async |body: Value| post(&router, "/api/suspensions", body).await;
    for (filter, queues, deliveries) in [
        (json!({ "site": "gmail" }), 1, 2),
        (json!({ "domain": "*.example" }), 2, 3),
        (json!({ "domain": "other.example" }), 1, 1),
        (json!({ "destination": "smtp://10.0.0.5:25" }), 0, 0),
        (json!({ "source": "default" }), 2, 3),
        (json!({ "stream": "bulk" }), 0, 0),
        (json!({ "all": true }), 2, 3),
    ] {
        let mut body = filter.clone();
        body["dry_run"] = true.into();
        let answer = ask(body).await;
        assert_eq!(answer.status, StatusCode::OK, "{filter} {}", answer.json);
        let reach = json!({ "queues": queues, "deliveries": deliveries, "dry_run": true });
        assert_eq!(answer.json, json!({ "reach": reach }), "{filter}");
    }
    // What could not be added is told in a dry run as well.
    for (body, kind) in [
        (json!({ "org": "nobody", "dry_run": true }), "not-found"),
        (json!({ "destination": "smarthost:none", "dry_run": true }), "not-found"),
        (json!({ "destination": "mx:a.example", "dry_run": true }), "invalid"),
        (json!({ "destination": "somewhere", "dry_run": true }), "invalid"),
        (json!({ "destination": "smtp://a:25", "domain": "a.example", "dry_run": true }), "invalid"),
        (json!({ "dry_run": true }), "invalid"),
    ] {
        assert_eq!(ask(body.clone()).await.problem(), kind, "{body}");
    }
    assert_eq!(get(&router, "/api/suspensions").await.json["items"], json!([]));
    assert_eq!(stand.asked.lock().directory_changed, 0);

    let one = ask(json!({ "domain": "g.example" })).await.json;
    assert_eq!((&one["domain"], &one["reach"]["deliveries"]), (&json!("g.example"), &json!(2)));
    let all = ask(json!({ "all": true })).await.json;
    let reach = async |ids: &[&Value]| {
        let ids: Vec<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
        get(&router, &format!("/api/suspensions/reach?ids={}", ids.join(","))).await.json
    };
    let told = reach(&[&one["id"]]).await;
    assert_eq!(told, json!({ "queues": 0, "deliveries": 0, "still_suspended": 2 }));
    let told = reach(&[&all["id"]]).await;
    assert_eq!(told, json!({ "queues": 1, "deliveries": 1, "still_suspended": 2 }));
    let told = reach(&[&one["id"], &all["id"]]).await;
    assert_eq!(told, json!({ "queues": 2, "deliveries": 3, "still_suspended": 0 }));
    assert_eq!(get(&router, "/api/suspensions/reach?ids=9999").await.problem(), "not-found");
    assert_eq!(get(&router, "/api/suspensions").await.json["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_suspended_domain_names_where_routes_send_its_mail() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let up = json!({ "name": "up", "hosts": ["a.example:587"] });
    assert_eq!(post(&router, "/api/smarthosts", up).await.status, StatusCode::CREATED);
    for route in [
        json!({ "domains": ["b.example"], "to": "smtp://10.0.0.5:25" }),
        json!({ "domains": ["*.example"], "senders": ["*@news.example"], "to": "smarthost:up" }),
        json!({ "domains": ["a.example"], "to": "mx" }),
        json!({ "to": "smtp://10.0.0.6:25" }),
    ] {
        assert_eq!(post(&router, "/api/routes", route).await.status, StatusCode::CREATED);
    }
    for (domain, routed) in [
        ("a.example", json!(["smarthost:up"])),
        ("b.example", json!(["smtp://10.0.0.5:25"])),
        ("*.example", json!(["smtp://10.0.0.5:25", "smarthost:up", "smtp://10.0.0.6:25"])),
        ("else.where", json!(["smtp://10.0.0.6:25"])),
    ] {
        let answer = post(&router, "/api/suspensions", json!({ "domain": domain, "dry_run": true })).await;
        assert_eq!(answer.json["reach"]["routed"], routed, "{domain}");
    }
    let made = post(&router, "/api/suspensions", json!({ "destination": "smarthost:up" })).await;
    assert_eq!((made.status, &made.json["destination"]), (StatusCode::CREATED, &json!("smarthost:up")));
    let rule = json!({ "pool": "default", "domains": ["a.example"], "destinations": ["smarthost:up"] });
    let made = post(&router, "/api/egress", rule).await;
    assert_eq!(made.json["destinations"], json!(["smarthost:up"]), "{}", made.json);
    for wrong in ["mx:a.example", "sandbox", "maildir:/var/mail/{user}"] {
        let rule = json!({ "pool": "default", "destinations": [wrong] });
        assert_eq!(post(&router, "/api/egress", rule).await.problem(), "invalid", "{wrong}");
    }
    // What a rule names is not taken away under it.
    assert_eq!(delete(&router, "/api/smarthosts/up").await.problem(), "conflict");
}

#[tokio::test]
async fn suppressions_are_added_found_and_lifted() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let new = json!({ "address": "Bob@Example.org", "reason": "asked for it" });
    assert_eq!(post(&router, "/api/suppressions", new.clone()).await.status, StatusCode::CREATED);
    assert_eq!(post(&router, "/api/suppressions", new).await.status, StatusCode::OK, "it is there already");
    for n in 0..5 {
        post(&router, "/api/suppressions", json!({ "address": format!("u{n}@example.net") })).await;
    }
    let (mut seen, mut after) = (0, String::new());
    loop {
        let page = get(&router, &format!("/api/suppressions?limit=4{after}")).await.json;
        seen += page["items"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace(' ', "%20")),
            None => break,
        }
    }
    assert_eq!(seen, 6);
    let found = get(&router, "/api/suppressions/bob@example.org").await.json;
    assert_eq!((&found["reason"], &found["source"]), (&json!("asked for it"), &json!("manual")));
    assert_eq!(delete(&router, "/api/suppressions/bob@example.org").await.status, StatusCode::NO_CONTENT);
    assert_eq!(get(&router, "/api/suppressions/bob@example.org").await.problem(), "not-found");
    assert_eq!(get(&router, "/api/suppressions?org=nobody").await.problem(), "not-found");
}

#[tokio::test]
async fn the_queue_is_filtered_by_stream_site_and_source_and_each_change_is_on_record() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    for n in 0..6 {
        let to = if n % 3 == 0 { "bob@g.example" } else { "bob@other.example" };
        admit(&stand, "ann@example.com", to).await;
    }
    let count = async |query: &str| {
        let found = get(&router, &format!("/api/queue?{query}")).await;
        found.json["items"].as_array().unwrap_or_else(|| panic!("{}", found.json)).len()
    };
    assert_eq!(count("site=gmail").await, 2);
    assert_eq!(count("site=provider:gmail&limit=1").await, 1);
    assert_eq!(count("site=mx:other.example").await, 4);
    assert_eq!(count("stream=bulk").await, 0);
    assert_eq!(count("stream=transactional&source=default").await, 6);
    assert_eq!(get(&router, "/api/queue?source=none").await.problem(), "not-found");
    assert_eq!(get(&router, "/api/queue?stream=news").await.problem(), "invalid");
    // Page by page, nothing is left out and nothing comes twice.
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&router, &format!("/api/queue?site=mx:other.example&limit=3{after}")).await.json;
        ids.extend(page["items"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids.len(), 4);

    let ask = |dry: bool| json!({ "filter": { "site": "gmail" }, "dry_run": dry, "reason": "odd" });
    let dry = post(&router, "/api/queue/actions/hold", ask(true)).await.json;
    assert_eq!((&dry["changed"], &dry["dry_run"]), (&json!(2), &json!(true)));
    assert!(stand.asked.lock().applied.is_empty());
    assert_eq!(post(&router, "/api/queue/actions/hold", ask(false)).await.json["changed"], 2);
    assert_eq!(stand.asked.lock().applied, [(Action::Hold { reason: "odd".into() }, 2)]);
    assert_eq!(count("state=held").await, 2);
    post(&router, "/api/queue/actions/release", json!({ "all": true })).await;
    let record = get(&router, "/api/audit?what=queue").await.json;
    let entries = record["items"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "a dry run is not on record: {record:#}");
    assert_eq!((&entries[0]["action"], &entries[0]["name"]), (&json!("release"), &json!("all")));
    let held = &entries[1];
    assert_eq!((&held["action"], &held["name"]), (&json!("hold"), &json!("site gmail")));
    assert_eq!((&held["by"], &held["after"]["changed"]), (&json!("ann (uid 7)"), &json!(2)));
}

#[tokio::test]
async fn a_delivery_says_where_it_goes_and_why_it_waits() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let id = admit(&stand, "ann@example.com", "bob@g.example").await;
    let shown = get(&router, &format!("/api/queue/{id}")).await.json;
    let delivery = &shown["deliveries"][0];
    assert_eq!(delivery["why"], "mx:g.example is over its rate");
    assert_eq!((&delivery["site"], &delivery["pool"]), (&json!("provider:gmail"), &json!("default")));
    assert_eq!(delivery["sources"], json!(["default"]));
    assert_eq!(get(&router, "/api/paths").await.json["items"][0]["site"], "provider:gmail");
    assert_eq!(get(&router, "/api/providers").await.json["items"][0]["name"], "gmail");
}

#[tokio::test]
async fn a_smart_host_has_weights_logins_tokens_and_health() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let new = json!({
        "name": "office", "hosts": ["a.example:587", "b.example:587"], "weights": [3, 1], "order": "weighted",
        "username": "relay@brand.example",
        "oauth": { "token_url": "https://login.example/token", "client_id": "relay", "client_secret": "hunter2",
            "refresh_token_file": "/var/lib/refresh.token" },
        "logins": [
            { "senders": ["*@brand.example"], "username": "brand", "password": "hunter3" },
            { "username": "tokens", "oauth": { "token_url": "https://login.example/brand", "client_id": "brand",
                "client_secret": "hunter4", "refresh_token": "hunter5" } },
        ],
    });
    let made = post(&router, "/api/smarthosts", new.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    let text = get(&router, "/api/smarthosts/office").await.json;
    assert!(!text.to_string().contains("hunter"), "{text}");
    assert_eq!((&text["order"], &text["weights"]), (&json!("weighted"), &json!([3, 1])));
    assert_eq!(text["logins"][0]["username"], "brand");
    assert_eq!(text["logins"][1]["token_url"], "https://login.example/brand");
    assert_eq!(text["health"][0]["failures"], 3);
    // Said anew without secrets, it keeps them.
    let mut again = new;
    again["logins"][0].as_object_mut().unwrap().remove("password");
    again["logins"][1]["oauth"].as_object_mut().unwrap().remove("client_secret");
    again["logins"][1]["oauth"].as_object_mut().unwrap().remove("refresh_token");
    again["oauth"].as_object_mut().unwrap().remove("client_secret");
    assert_eq!(put(&router, "/api/smarthosts/office", again.clone()).await.status, StatusCode::OK);
    let kept = stand.directory.snapshot().smarthost("office").unwrap().clone();
    assert_eq!(kept.more.logins[0].password.as_ref().unwrap().expose(), "hunter3");
    let oauth = kept.more.logins[1].oauth.as_ref().unwrap();
    assert_eq!(oauth.client_secret.as_ref().unwrap().expose(), "hunter4");
    assert_eq!(oauth.refresh_token.as_ref().unwrap().expose(), "hunter5");
    // Of another application they are of no use, and are not sent to it.
    let mut other = again.clone();
    other["logins"][1]["oauth"]["client_id"] = "somebody else".into();
    assert_eq!(put(&router, "/api/smarthosts/office", other).await.problem(), "invalid");
    assert!(!get(&router, "/api/audit").await.json.to_string().contains("hunter"));
    assert_eq!(kept.more.oauth.as_ref().unwrap().client_secret.as_ref().unwrap().expose(), "hunter2");
    for wrong in [
        json!({ "name": "x", "hosts": ["a.example:587"], "weights": [1, 2] }),
        json!({ "name": "x", "hosts": ["a.example:587"], "order": "random" }),
        json!({ "name": "x", "hosts": ["a.example:587"], "logins": [{ "username": "brand" }] }),
        json!({ "name": "x", "hosts": ["a.example:587"], "logins": [{ "username": "brand", "password": "p",
            "oauth": { "token_url": "https://a", "client_id": "x", "client_secret": "s" } }] }),
        json!({ "name": "x", "hosts": ["a.example:587"], "logins": [{ "username": "brand",
            "oauth": { "token_url": "https://a", "client_id": "x" } }] }),
        json!({ "name": "x", "hosts": ["a.example:587"], "logins": [{ "username": "brand",
            "oauth": { "token_url": "https://a", "client_id": "x", "refresh_token_file": "relative" } }] }),
        json!({ "name": "x", "hosts": ["a.example:587"], "username": "u", "oauth": { "token_url": "http://a", "client_id": "x" } }),
        json!({ "name": "x", "hosts": ["a.example:587"], "client_certificate": "/a.pem" }),
    ] {
        assert_eq!(post(&router, "/api/smarthosts", wrong.clone()).await.problem(), "invalid", "{wrong}");
    }
}
