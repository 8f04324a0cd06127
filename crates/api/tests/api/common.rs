//! A relay's stores behind the router, and a client.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::types::{
    BackupReport, ClusterView, Envelope, ExplainRequest, Explanation, HostHealth, NodeView, PathView, Probe,
    ProviderView, Reloaded, Status,
};
use api::{Actor, Control, Kind, Problem, Upload};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use directory::Directory;
use history::History;
use http_body_util::BodyExt;
use mail::{
    Accepted, Address, Body as MailBody, Clock, DeliveryId, Destination, EnhancedStatus, Event, EventKind,
    Message, MessageId, OrgId, Origin, Protocol, QueueKey, Recipient, Reply, Site, Stream,
};
use parking_lot::Mutex;
use serde_json::Value;
use store::{Action, Admission, ChangedDelivery, NewDelivery, NewState, Store};
use tower::ServiceExt;

/// What the API asked of the program.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) applied: Vec<(Action, usize)>,
    pub(crate) directory_changed: usize,
    pub(crate) not_ready: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) submitted: Vec<(String, Envelope, Vec<u8>)>,
}

#[derive(Clone)]
pub(crate) struct Stand {
    pub(crate) store: Store,
    pub(crate) directory: Directory,
    pub(crate) history: History,
    pub(crate) clock: Clock,
    pub(crate) asked: Arc<Mutex<Asked>>,
    _dir: Arc<tempfile::TempDir>,
}

pub(crate) async fn stand() -> Stand {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let (config, of_store) = (store::Config::new(dir.path()), clock.clone());
    let (store, _) =
        tokio::task::spawn_blocking(move || Store::open(config, of_store)).await.unwrap().unwrap();
    let directory = Directory::open(dir.path(), clock.clone()).unwrap();
    let history = History::open(dir.path(), history::Config::default(), clock.clone()).unwrap();
    Stand { store, directory, history, clock, asked: Arc::default(), _dir: Arc::new(dir) }
}

impl Control for Stand {
    fn store(&self) -> &Store {
        &self.store
    }
    fn directory(&self) -> &Directory {
        &self.directory
    }
    fn history(&self) -> &History {
        &self.history
    }
    fn clock(&self) -> &Clock {
        &self.clock
    }
    fn status(&self) -> Status {
        Status { running: true, ..Status::default() }
    }
    fn ready(&self) -> Result<(), String> {
        self.asked.lock().not_ready.clone().map_or(Ok(()), Err)
    }
    async fn directory_changed(&self) {
        self.asked.lock().directory_changed += 1;
    }
    async fn reload(&self) -> Result<Reloaded, Problem> {
        Err(Problem::new(Kind::Invalid, "posthouse.toml:3: unknown key"))
    }
    async fn explain(&self, _: ExplainRequest) -> Result<Explanation, Problem> {
        Err(Problem::invalid("not here"))
    }
    async fn probe(&self, smarthost: &str) -> Result<Probe, Problem> {
        Ok(Probe { name: smarthost.to_owned(), steps: Vec::new() })
    }
    async fn submit(
        &self,
        by: mail::Actor,
        envelope: Envelope,
        mut content: Upload,
    ) -> Result<MessageId, Reply> {
        let mut all = Vec::new();
        loop {
            match content.chunk().await {
                Ok(Some(piece)) => all.extend_from_slice(&piece),
                Ok(None) => break,
                Err(e) => return Err(Reply::new(550, EnhancedStatus::new(5, 6, 0), e.to_string())),
            }
        }
        if envelope.to.iter().any(|to| to == "later@example.com") {
            return Err(Reply::new(452, EnhancedStatus::new(4, 3, 1), "Out of disk space here"));
        }
        self.asked.lock().submitted.push((by, envelope, all));
        Ok(MessageId(77))
    }
    async fn apply(&self, action: Action, changed: Vec<ChangedDelivery>) -> u64 {
        self.asked.lock().applied.push((action, changed.len()));
        1
    }
    async fn backup(&self, to: PathBuf) -> Result<BackupReport, Problem> {
        let made = self.store.backup(to.clone()).await?;
        Ok(BackupReport { path: to.display().to_string(), messages: made.messages, bytes: made.bytes })
    }
    fn paths(&self) -> Result<Vec<PathView>, Problem> {
        let busy = PathView { source: "fast".into(), site: "provider:gmail".into(), ..PathView::default() };
        Ok(vec![busy])
    }
    fn why(&self, _: DeliveryId, queue: &QueueKey) -> Option<String> {
        Some(format!("{} is over its rate", queue.destination))
    }
    fn site_of(&self, destination: &Destination) -> Option<Site> {
        let gmail = matches!(destination, Destination::Mx(domain) if domain.starts_with("g."));
        gmail.then(|| Site::Provider("gmail".into()))
    }
    fn smarthost_health(&self, _: &str) -> Vec<HostHealth> {
        vec![HostHealth { host: "a.example:587".into(), failures: 3, ..HostHealth::default() }]
    }
    fn providers(&self) -> Vec<ProviderView> {
        vec![ProviderView { name: "gmail".into(), ..ProviderView::default() }]
    }
    fn node(&self) -> Option<String> {
        self.asked.lock().node.clone()
    }
    async fn cluster(&self) -> Result<ClusterView, Problem> {
        let asked = self.asked.lock();
        let node = asked.node.clone().ok_or_else(|| Problem::new(Kind::Conflict, "there is no cluster"))?;
        Ok(ClusterView { node, nodes: asked.nodes.clone(), ..ClusterView::default() })
    }
    async fn drain(&self, node: &str, draining: bool, by: &mail::Actor) -> Result<(), Problem> {
        let mut asked = self.asked.lock();
        let found = asked.nodes.iter_mut().find(|n| n.name == node);
        let found = found.ok_or_else(|| Problem::not_found(format!("no {node}, {by}")))?;
        found.state = if draining { "draining" } else { "up" }.into();
        Ok(())
    }
    async fn forget_node(&self, node: &str, _: &mail::Actor) -> Result<(), Problem> {
        let mut asked = self.asked.lock();
        if asked.nodes.iter().any(|n| n.name == node && n.state == "up") {
            return Err(Problem::new(Kind::Conflict, "it is up: stop it first"));
        }
        asked.nodes.retain(|n| n.name != node);
        Ok(())
    }
    async fn metrics(&self) -> String {
        "posthouse_up 1\n".into()
    }
    fn metrics_allowed(&self, client: IpAddr) -> bool {
        client.is_loopback()
    }
}

/// The answer to a request: status, and JSON where it is JSON.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) json: Value,
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: String,
}

impl Answer {
    /// The word of the problem that it has to be.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.kind, "application/problem+json", "{} {}", self.status, self.json);
        assert_eq!(self.json["status"], self.status.as_u16());
        assert!(self.json["type"].as_str().unwrap().starts_with("urn:posthouse:problem:"));
        assert!(!self.json["detail"].as_str().unwrap().is_empty());
        self.json["kind"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn send(
    router: &Router,
    method: Method,
    path: &str,
    kind: &str,
    body: impl Into<Body>,
) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let mut request = request.body(body.into()).unwrap();
    request.extensions_mut().insert(Actor("ann (uid 7)".into()));
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let kind = headers.get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned();
    let bytes = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status, json, bytes, kind }
}

pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Method::GET, path, "text/plain", Body::empty()).await
}

pub(crate) async fn post(router: &Router, path: &str, body: Value) -> Answer {
    send(router, Method::POST, path, "application/json", body.to_string()).await
}

pub(crate) const CONTENT: &str = "Subject: hello\r\n\r\nbody\r\n";

/// Puts a message with one recipient into the queue, waiting.
pub(crate) async fn admit(stand: &Stand, from: &str, to: &str) -> MessageId {
    let id = stand.store.ids().next();
    let mut sink = stand.store.sink(id);
    sink.write(CONTENT.as_bytes()).await.unwrap();
    let content = sink.finish().await.unwrap();
    let now = stand.clock.now();
    let message = Message {
        id,
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: now,
        reverse_path: Address::parse(from).ok(),
        ret: None,
        envid: None,
        body: MailBody::SevenBit,
        smtputf8: false,
        size: CONTENT.len() as u64,
        header_message_id: Some(format!("{id}@example.com")),
        require_tls: false,
        tls_optional: false,
        origin: Origin {
            protocol: Protocol::Smtp,
            client: Some([192, 0, 2, 1].into()),
            helo: Some("client.example".into()),
            credential: None,
            tls: None,
            listener: Some("smtp".into()),
        },
    };
    let recipient = Recipient::new(Address::parse(to).unwrap());
    let queue = QueueKey {
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        destination: Destination::Mx(recipient.address.domain().into()),
    };
    let accepted =
        Accepted { message: message.clone(), recipients: vec![recipient.clone()], report_on: None };
    let events = vec![Event { at: now, message: id, kind: EventKind::Accepted(Box::new(accepted)) }];
    stand.history.append(vec![(id.0, events[0].clone())]).await.unwrap();
    let state = NewState::Waiting { due: now.plus(std::time::Duration::from_secs(3600)) };
    let deliveries = vec![NewDelivery { queue, recipients: vec![(0, recipient)], state }];
    stand.store.admit(Admission { message, content, deliveries, dedupe: None, events }).await.unwrap();
    id
}
