//! The cluster over the API, and who is on record where several nodes answer.

use api::types::NodeView;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::json;

use super::common::{get, post, send, stand};

fn node(name: &str, state: &str) -> NodeView {
    NodeView { name: name.into(), state: state.into(), beat_age_s: 0.4, ..NodeView::default() }
}

#[tokio::test]
async fn nodes_are_shown_drained_and_removed() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    assert_eq!(get(&router, "/api/cluster").await.problem(), "conflict");
    {
        let mut asked = stand.asked.lock();
        asked.node = Some("relay1".into());
        asked.nodes = vec![node("relay1", "up"), node("relay 2", "dead")];
    }
    let all = get(&router, "/api/cluster").await;
    assert_eq!(all.status, StatusCode::OK);
    assert_eq!((&all.json["node"], &all.json["nodes"][1]["name"]), (&json!("relay1"), &json!("relay 2")));
    let drained = post(&router, "/api/cluster/nodes/relay1/drain", json!({})).await;
    assert_eq!((drained.status, &drained.json["state"]), (StatusCode::OK, &json!("draining")));
    assert_eq!(get(&router, "/api/cluster/nodes/relay1").await.json["state"], "draining");
    let resumed = post(&router, "/api/cluster/nodes/relay1/resume", json!({})).await;
    assert_eq!(resumed.json["state"], "up");
    let none = post(&router, "/api/cluster/nodes/relay3/drain", json!({})).await;
    assert_eq!(none.problem(), "not-found");

    let up = send(&router, Method::DELETE, "/api/cluster/nodes/relay1", "text/plain", Body::empty()).await;
    assert_eq!(up.problem(), "conflict");
    let gone =
        send(&router, Method::DELETE, "/api/cluster/nodes/relay%202", "text/plain", Body::empty()).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(get(&router, "/api/cluster").await.json["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(get(&router, "/api/cluster/nodes/relay%202").await.problem(), "not-found");
}

#[tokio::test]
async fn the_record_says_at_which_node_somebody_was() {
    let stand = stand().await;
    let router = api::router(stand.clone());
    post(&router, "/api/orgs", json!({ "name": "before" })).await;
    stand.asked.lock().node = Some("relay1".into());
    let made = post(&router, "/api/orgs", json!({ "name": "acme" })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    let audit = get(&router, "/api/audit?what=organisation").await.json;
    let by = |i: usize| audit["items"][i]["by"].as_str().unwrap().to_owned();
    assert_eq!((by(0), by(1)), ("ann (uid 7) at relay1".to_owned(), "ann (uid 7)".to_owned()));
}
