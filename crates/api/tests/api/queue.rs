//! The queue and the traces.

use axum::http::{Method, StatusCode};
use serde_json::json;
use store::Action;

use crate::common::*;

#[tokio::test]
async fn deliveries_are_listed_by_page_and_filter() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let mut ids = Vec::new();
    for n in 0..7 {
        let to = if n % 2 == 0 { "bob@even.example" } else { "bob@odd.example" };
        ids.push(admit(&stand, "ann@example.com", to).await.to_string());
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&router, &format!("/api/queue?limit=3{after}")).await;
        seen.extend(
            page.json["items"].as_array().unwrap().iter().map(|d| d["message"].as_str().unwrap().to_owned()),
        );
        match page.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let odd = get(&router, "/api/queue?domain=odd.example&state=waiting,held").await;
    assert_eq!(odd.json["items"].as_array().unwrap().len(), 3);
    let young = get(&router, "/api/queue?older_than_s=3600").await;
    assert_eq!(young.json["items"], json!([]));
    let both = get(&router, &format!("/api/queue?id={},{}-0", ids[0], ids[1])).await;
    assert_eq!(both.json["items"].as_array().unwrap().len(), 0, "all that is given must match");
    admit(&stand, "ann@example.com", "bob@a.example").await;
    let largest = get(&router, "/api/queues?largest=2").await;
    assert_eq!(largest.json["items"].as_array().unwrap().len(), 2);
    assert_eq!(largest.json["items"][0]["destination"], "mx:even.example");
    assert_eq!(largest.json["items"][0]["waiting"], 4);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&router, &format!("/api/queues?limit=1{after}")).await;
        seen.extend(page.json["items"].as_array().unwrap().iter().map(|q| q["destination"].clone()));
        match page.json["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace(' ', "%20")),
            None => break,
        }
    }
    assert_eq!(seen, ["mx:a.example", "mx:even.example", "mx:odd.example"]);
}

#[tokio::test]
async fn a_message_is_shown_and_given_byte_for_byte() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let id = admit(&stand, "ann@example.com", "bob@example.org").await;
    let shown = get(&router, &format!("/api/queue/{id}")).await;
    assert_eq!(shown.json["client"], "192.0.2.1");
    assert_eq!(shown.json["deliveries"][0]["recipients"][0]["address"], "bob@example.org");
    for path in [format!("/api/queue/{id}/raw"), format!("/api/queue/{id}-0/raw")] {
        let raw = get(&router, &path).await;
        assert_eq!((raw.status, raw.kind.as_str()), (StatusCode::OK, "message/rfc822"));
        assert_eq!(raw.bytes, CONTENT.as_bytes());
    }
    let trace = get(&router, "/api/trace?text=bob@example.org").await;
    assert_eq!(trace.json["items"][0]["id"], id.to_string());
    assert_eq!(trace.json["items"][0]["recipients"][0]["end"], "queued");
    assert_eq!(trace.json["items"][0]["helo"], "client.example");
}

#[tokio::test]
async fn changes_need_a_filter_or_all_and_reach_the_driver() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let id = admit(&stand, "ann@example.com", "bob@example.org").await;
    admit(&stand, "ann@example.com", "bob@example.net").await;
    let act = async |action: &str, ask: serde_json::Value| {
        post(&router, &format!("/api/queue/actions/{action}"), ask).await
    };
    assert_eq!(act("remove", json!({})).await.problem(), "invalid");
    assert_eq!(act("remove", json!({ "filter": { "limit": 5 } })).await.problem(), "invalid");
    let dry = act("remove", json!({ "all": true, "dry_run": true })).await;
    assert_eq!(
        dry.json,
        json!({ "changed": 2, "in_flight": 0, "elsewhere": 0, "skipped": 0, "dry_run": true })
    );
    assert!(stand.asked.lock().applied.is_empty(), "a dry run changes nothing");

    let held = act("hold", json!({ "filter": { "id": id.to_string() }, "reason": "odd" })).await;
    assert_eq!(
        held.json,
        json!({ "changed": 1, "in_flight": 1, "elsewhere": 0, "skipped": 0, "dry_run": false })
    );
    let shown = get(&router, &format!("/api/queue/{id}")).await;
    assert_eq!(shown.json["deliveries"][0]["state"], "held");
    assert_eq!(shown.json["deliveries"][0]["reason"], "odd");
    assert_eq!(act("reroute", json!({ "all": true })).await.problem(), "invalid");
    assert_eq!(act("reroute", json!({ "all": true, "to": "smarthost:none" })).await.problem(), "not-found");
    assert_eq!(act("release", json!({ "all": true, "to": "discard" })).await.problem(), "invalid");
    assert_eq!(act("explode", json!({ "all": true })).await.problem(), "not-found");
    assert_eq!(act("release", json!({ "all": true })).await.json["changed"], 1);
    assert_eq!(act("remove", json!({ "all": true })).await.json["changed"], 2);
    assert_eq!(get(&router, &format!("/api/queue/{id}")).await.problem(), "not-found");
    let actions: Vec<_> = stand.asked.lock().applied.iter().map(|(action, n)| (action.clone(), *n)).collect();
    let hold = Action::Hold { reason: "odd".into() };
    assert_eq!(actions, [(hold, 1), (Action::Release, 1), (Action::Remove, 2)]);
}

#[tokio::test]
async fn mail_is_rerouted_to_the_exchangers_of_its_own_domain() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let mut ids = Vec::new();
    for to in ["a@one.example", "b@two.example", "c@one.example"] {
        ids.push(admit(&stand, "ann@example.com", to).await.to_string());
    }
    let discard = json!({ "all": true, "to": "discard" });
    assert_eq!(post(&router, "/api/queue/actions/reroute", discard).await.json["changed"], 3);
    let dry =
        post(&router, "/api/queue/actions/reroute", json!({ "all": true, "to": "mx", "dry_run": true }))
            .await;
    assert_eq!((&dry.json["changed"], &dry.json["skipped"]), (&json!(3), &json!(0)));
    assert_eq!(get(&router, "/api/queue").await.json["items"][0]["destination"], "discard");
    post(&router, "/api/queue/actions/reroute", json!({ "all": true, "to": "mx" })).await;
    let all = get(&router, "/api/queue").await;
    let destinations: Vec<_> =
        all.json["items"].as_array().unwrap().iter().map(|d| d["destination"].clone()).collect();
    assert_eq!(destinations, ["mx:one.example", "mx:two.example", "mx:one.example"]);
}

#[tokio::test]
async fn a_message_is_submitted_with_its_envelope_before_it() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    let submit = async |body: &str| {
        send(&router, Method::POST, "/api/submit", "message/rfc822", body.to_owned()).await
    };
    let envelope = r#"{"from":"ann@example.com","to":["bob@example.org"]}"#;
    let done = submit(&format!("{envelope}\n{CONTENT}")).await;
    assert_eq!((done.status, &done.json["id"]), (StatusCode::CREATED, &json!("000000000002d")));
    let (by, _, content) = stand.asked.lock().submitted.pop().unwrap();
    assert_eq!((by.as_str(), content.as_slice()), ("ann (uid 7)", CONTENT.as_bytes()));
    assert_eq!(submit(&format!("{envelope}\nSubject: x\n\nbare")).await.problem(), "refused");
    assert_eq!(submit(envelope).await.problem(), "invalid");
    assert_eq!(submit("Subject: x\r\n\r\n").await.problem(), "invalid");
    assert_eq!(submit(&format!("{}\n{CONTENT}", r#"{"from":"a@b","to":[]}"#)).await.problem(), "invalid");
    let later = submit(&format!("{}\n{CONTENT}", r#"{"from":"a@b","to":["later@example.com"]}"#)).await;
    assert_eq!((later.status, later.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert!(stand.asked.lock().submitted.is_empty());
}
