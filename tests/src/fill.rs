//! A queue filled through the store's own API, while no relay runs: a million messages in a minute.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mail::{
    Address, Body, Clock, Destination, HostPort, Message, MessageId, OrgId, Origin, Protocol, QueueKey,
    Recipient, Stream, Timestamp,
};
use store::{Admission, Config, NewDelivery, NewState, Store};

/// Admissions handed in at a time: enough for large groups, few enough for memory.
const WRITERS: u64 = 500;

/// What is put into a queue: messages with one recipient each, over some destinations in turn.
#[derive(Clone, Debug)]
pub struct Fill {
    /// How many messages.
    pub messages: u64,
    /// Octets of content of each.
    pub size: usize,
    /// Where they go.
    pub to: To,
    /// When the first of them is due; each one after it a millisecond later.
    pub due: Timestamp,
}

/// Destinations.
#[derive(Clone, Debug)]
pub enum To {
    /// The mail exchangers of so many domains: `d0.fill.example` and so on.
    Domains(u64),
    /// These hosts, as routes name them.
    Hosts(Vec<SocketAddr>),
}

impl To {
    /// The domain and the destination of the `n`th message.
    pub fn of(&self, n: u64) -> (String, Destination) {
        let many = match self {
            Self::Domains(many) => *many,
            Self::Hosts(hosts) => hosts.len() as u64,
        };
        let n = n % many;
        let domain = format!("d{n}.fill.example");
        let destination = match self {
            Self::Domains(_) => Destination::Mx(domain.as_str().into()),
            Self::Hosts(hosts) => {
                let at = hosts[usize::try_from(n).unwrap()];
                Destination::Smtp(HostPort { host: at.ip().to_string().into(), port: at.port() })
            }
        };
        (domain, destination)
    }
}

impl Fill {
    /// Fills the store in a data directory, which is made if it is not there, and closes it.
    pub fn run(&self, dir: &Path) {
        runtime().block_on(async {
            let (store, _) = Store::open(config(dir), Clock::system()).unwrap();
            self.into(&store).await;
            store.close().await.unwrap();
        });
    }

    /// Fills an open store.
    pub async fn into(&self, store: &Store) {
        let next = Arc::new(AtomicU64::new(0));
        let content: Arc<[u8]> = content(self.size).into();
        let tasks: Vec<_> = (0..WRITERS.min(self.messages))
            .map(|_| {
                let (store, next, content) = (store.clone(), next.clone(), content.clone());
                let fill = self.clone();
                tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= fill.messages {
                            return;
                        }
                        let state = NewState::Waiting { due: Timestamp(fill.due.0 + n.cast_signed()) };
                        let one = admission(&store, &content, fill.to.of(n), state).await;
                        store.admit(one).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

/// A runtime for working with a store.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// A store's configuration that leaves the disk to others.
pub fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    config.disk_reserve = 0;
    config
}

/// One message to one recipient, as the relay would admit it; without events, as no history takes them over.
pub async fn admission(
    store: &Store,
    content: &[u8],
    (domain, destination): (String, Destination),
    state: NewState,
) -> Admission {
    let id = store.ids().next();
    let mut sink = store.sink(id);
    sink.write(content).await.unwrap();
    let content = sink.finish().await.unwrap();
    let recipient = Recipient::new(format!("someone@{domain}").parse().unwrap());
    let queue = QueueKey { org: OrgId::DEFAULT, stream: Stream::Transactional, destination };
    Admission {
        message: message(id, content.len()),
        content,
        deliveries: vec![NewDelivery { queue, recipients: vec![(0, recipient)], state }],
        dedupe: None,
        events: Vec::new(),
    }
}

fn message(id: MessageId, size: u64) -> Message {
    Message {
        id,
        org: OrgId::DEFAULT,
        stream: Stream::Transactional,
        received_at: Clock::system().now(),
        reverse_path: Some(sender()),
        ret: None,
        envid: None,
        body: Body::SevenBit,
        smtputf8: false,
        size,
        header_message_id: Some(format!("{id}@origin.example")),
        origin: Origin {
            protocol: Protocol::Smtp,
            client: Some("192.0.2.7".parse().unwrap()),
            helo: Some("client.origin.example".into()),
            credential: None,
            tls: None,
            listener: Some("smtp".into()),
        },
        require_tls: false,
        tls_optional: false,
    }
}

/// Who sends what is filled in.
pub fn sender() -> Address {
    "sender@origin.example".parse().unwrap()
}

fn content(size: usize) -> Vec<u8> {
    let mut text = b"From: sender@origin.example\r\nSubject: filled in\r\n\r\n".to_vec();
    while text.len() < size {
        text.extend_from_slice(b"A line of sixty octets of text, as a letter would have it.\r\n");
    }
    text.truncate(size.max(2) - 2);
    text.extend_from_slice(b"\r\n");
    text
}
