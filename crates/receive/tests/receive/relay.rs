//! A small relay: the real store and the real network, and rules that a test can read at a glance.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mail::{
    Clock, Destination, EnhancedStatus, Message, MessageId, OrgId, QueueKey, Recipient, Reply, Stream,
};
use net::{CertificateSource, Listener, ServerTls, ServerTlsConfig};
use receive::{
    AuthAnswer, AuthAsk, Backend, BareNewline, Connections, Identity, Limits, ListenerConfig, MailAsk, Mode,
    Policy, RcptAsk, Submission,
};
use smtp::sasl::ScramVerifier;
use store::{Admission, Admitted, NewDelivery, NewState, Store};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A message that the store has taken.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) message: Message,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) content: String,
}

#[derive(Clone)]
pub(crate) struct Relay(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    policy: Arc<Policy>,
    connections: Connections,
    full: AtomicBool,
    got: mpsc::UnboundedSender<Got>,
    _dir: TempDir,
}

/// A relay that serves one listener.
pub(crate) struct Running {
    pub(crate) relay: Relay,
    pub(crate) address: SocketAddr,
    pub(crate) got: mpsc::UnboundedReceiver<Got>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<()>,
}

pub(crate) fn listener(mode: Mode) -> ListenerConfig {
    ListenerConfig {
        name: "test".into(),
        mode,
        auth: true,
        auth_without_tls: vec![],
        bare_newline: BareNewline::Refuse,
        proxy_protocol: vec![],
        xclient: vec![],
    }
}

pub(crate) fn limits() -> Limits {
    Limits { message_size: 30_000_000, ..Limits::default() }
}

impl Running {
    pub(crate) fn start(config: ListenerConfig, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let mut store = store::Config::new(dir.path().join("store"));
        store.disk_reserve = 0;
        let (store, _) = Store::open(store, clock.clone()).unwrap();
        let tls = ServerTlsConfig {
            hostname: "relay.example".into(),
            data_dir: dir.path().to_owned(),
            source: CertificateSource::SelfSigned,
        };
        let tls = ServerTls::open(tls, clock.clone()).unwrap();
        let policy = Policy { hostname: "relay.example".into(), tls: Some(tls), scram: true, limits };
        let (sender, got) = mpsc::unbounded_channel();
        let relay = Relay(Arc::new(Inner {
            store,
            clock,
            policy: Arc::new(policy),
            connections: Connections::new(),
            full: AtomicBool::new(false),
            got: sender,
            _dir: dir,
        }));
        let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = listener.addresses().next().unwrap();
        let shutdown = CancellationToken::new();
        let served =
            tokio::spawn(receive::serve(Arc::new(listener), config, relay.clone(), shutdown.clone()));
        Self { relay, address, got, shutdown, served }
    }

    /// The next message that the store took.
    pub(crate) async fn next(&mut self) -> Got {
        let got = tokio::time::timeout(Duration::from_secs(20), self.got.recv()).await;
        got.expect("a message in time").expect("the relay lives")
    }

    /// Checks that nothing was taken, once every session is over.
    pub(crate) async fn nothing(mut self) {
        self.shutdown.cancel();
        self.served.await.unwrap();
        drop(self.relay);
        assert!(self.got.recv().await.is_none());
    }
}

impl Relay {
    pub(crate) fn fill(&self) {
        self.0.full.store(true, Ordering::Relaxed);
    }

    pub(crate) fn open(&self) -> usize {
        self.0.connections.open()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }
}

fn no(code: u16, class: u8, subject: u16, detail: u16, text: &str) -> Reply {
    Reply::new(code, EnhancedStatus::new(class, subject, detail), text)
}

impl Backend for Relay {
    fn policy(&self) -> Arc<Policy> {
        self.0.policy.clone()
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn connections(&self) -> &Connections {
        &self.0.connections
    }

    fn next_id(&self) -> MessageId {
        self.0.store.ids().next()
    }

    fn sink(&self, id: MessageId) -> store::Sink {
        self.0.store.sink(id)
    }

    fn room(&self, _size: u64) -> Result<(), Reply> {
        if self.0.full.load(Ordering::Relaxed) {
            return Err(no(452, 4, 3, 1, "No room"));
        }
        Ok(())
    }

    async fn authenticate(&self, ask: AuthAsk, _peer: IpAddr) -> AuthAnswer {
        if ask.login == "user" && ask.password.0 == "secret" {
            AuthAnswer::Ok(Identity { org: OrgId(7), login: "user".into(), stream: Stream::Bulk })
        } else {
            AuthAnswer::Failed
        }
    }

    async fn scram(&self, login: &str, _peer: IpAddr) -> Option<ScramVerifier> {
        (login == "user").then(|| ScramVerifier::new("secret").unwrap())
    }

    async fn scram_done(&self, login: &str, _peer: IpAddr, proven: bool) -> AuthAnswer {
        if proven {
            AuthAnswer::Ok(Identity { org: OrgId(7), login: login.into(), stream: Stream::Bulk })
        } else {
            AuthAnswer::Failed
        }
    }

    async fn mail(&self, ask: MailAsk<'_>) -> Result<OrgId, Reply> {
        match &ask.client.identity {
            Some(identity) => Ok(identity.org),
            None if ask.client.listener.mode.is_submission() => Err(no(530, 5, 7, 0, "Authenticate first")),
            None => Ok(OrgId::DEFAULT),
        }
    }

    async fn rcpt(&self, ask: RcptAsk<'_>) -> Result<(), Reply> {
        if ask.recipient.address.local() == "nobody" {
            return Err(no(550, 5, 1, 1, "No such user"));
        }
        Ok(())
    }

    async fn admit(&self, submission: Submission) -> Result<MessageId, Reply> {
        let Submission { message, recipients, content } = submission;
        let id = message.id;
        let queue = QueueKey {
            org: message.org,
            stream: Stream::Transactional,
            destination: Destination::Mx("d.example".into()),
        };
        let numbered = (0..).zip(recipients.clone()).collect();
        let admission = Admission {
            message: message.clone(),
            content,
            deliveries: vec![NewDelivery { queue, recipients: numbered, state: NewState::Active }],
            dedupe: None,
            events: vec![],
        };
        let Admitted::New(waiting) = self.0.store.admit(admission).await.unwrap() else {
            panic!("no dedupe")
        };
        let content = self.0.store.content(&waiting[0].content).await.unwrap();
        let octets = content.read_all_up_to(100_000_000).await.unwrap();
        assert_eq!(octets.len() as u64, message.size);
        let content = String::from_utf8_lossy(&octets).into_owned();
        let _ = self.0.got.send(Got { message, recipients, content });
        Ok(id)
    }
}
