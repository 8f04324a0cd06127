//! What every scenario needs: an engine with short time-outs, jobs from a real store, neighbours.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use deliver::{Engine, EngineConfig, Job, Link, Permit, Settings, Timeouts};
use mail::{
    Address, Attempt, Body, Clock, Destination, Disposition, HostPort, Message, OrgId, Origin, Protocol,
    QueueKey, Recipient, Site, Stream, default_source,
};
use net::{ClientTls, ClientTlsConfig, Resolver, ResolverConfig};
use store::{Admission, Admitted, Config, NewDelivery, NewState, Store};
use tempfile::TempDir;

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const LETTER: &[u8] =
    b"From: a@example.com\r\nSubject: hello\r\n\r\nHello there.\r\n.leading dot\r\n";

/// An engine, and a store that its jobs come from.
pub(crate) struct Rig {
    pub(crate) engine: Arc<Engine>,
    store: Store,
    pub(crate) dir: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With settings of its own. At first: short time-outs, loopback allowed, no DNS.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::made(change, Permit::always())
    }

    /// Of a node that may complete what `permit` says.
    pub(crate) fn permitted(permit: Permit) -> Self {
        Self::made(|_| {}, permit)
    }

    fn made(change: impl FnOnce(&mut Settings), permit: Permit) -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Clock::system();
        let config = Config { disk_reserve: 0, ..Config::new(dir.path().join("store")) };
        let (store, _) = Store::open(config, clock.clone()).unwrap();
        let nowhere = ResolverConfig { servers: vec!["127.0.0.1:9".parse().unwrap()], ..Default::default() };
        let tls = ClientTls::new(&ClientTlsConfig::default(), clock.clone()).unwrap();
        let mut settings = Settings::new("relay.test", Resolver::new(&nowhere).unwrap(), tls);
        settings.allow_private_targets = true;
        settings.timeouts = short();
        settings.smarthosts = HashMap::new();
        change(&mut settings);
        Self { engine: Engine::new(EngineConfig { settings, clock, permit }), store, dir }
    }

    /// A job with the letter above.
    pub(crate) async fn letter(&self, to: &[&str]) -> Job {
        self.job(to, LETTER, |_| {}).await
    }

    /// A job, its message changed before it is stored.
    pub(crate) async fn job(&self, to: &[&str], content: &[u8], change: impl FnOnce(&mut Message)) -> Job {
        let id = self.store.ids().next();
        let mut message = Message {
            id,
            org: OrgId::DEFAULT,
            stream: Stream::Transactional,
            received_at: Clock::system().now(),
            reverse_path: Some(Address::parse("sender@example.com").unwrap()),
            ret: None,
            envid: None,
            body: Body::SevenBit,
            smtputf8: false,
            size: content.len() as u64,
            header_message_id: None,
            require_tls: false,
            tls_optional: false,
            origin: Origin {
                protocol: Protocol::Smtp,
                client: None,
                helo: None,
                credential: None,
                tls: None,
                listener: None,
            },
        };
        change(&mut message);
        let recipients =
            (0..).zip(to).map(|(n, to)| (n, Recipient::new(Address::parse(to).unwrap()))).collect();
        let queue = QueueKey {
            org: OrgId::DEFAULT,
            stream: Stream::Transactional,
            destination: Destination::Discard,
        };
        let mut sink = self.store.sink(id);
        for piece in content.chunks(100_000) {
            sink.write(piece).await.unwrap();
        }
        let admission = Admission {
            message,
            content: sink.finish().await.unwrap(),
            deliveries: vec![NewDelivery { queue, recipients, state: NewState::Active }],
            dedupe: None,
            events: vec![],
        };
        let Admitted::New(mut waiting) = self.store.admit(admission).await.unwrap() else {
            panic!("duplicate")
        };
        let waiting = waiting.remove(0);
        let content = match &waiting.body {
            Some(content) => content.clone(),
            None => self.store.content(&waiting.content).await.unwrap(),
        };
        Job { waiting, content, full_transcript: false }
    }

    /// A link from the default source to a destination that is on its own.
    pub(crate) fn link(&self, destination: &Destination) -> Line {
        let link = self.engine.link((default_source(), Site::Alone(destination.clone())));
        Line { link, destination: destination.clone() }
    }

    /// A link from this source to the site of a destination.
    pub(crate) async fn link_from(&self, source: &str, destination: &Destination) -> Line {
        let site = self.engine.locate(destination).await.site;
        Line { link: self.engine.link((source.into(), site)), destination: destination.clone() }
    }
}

/// A link, and the destination that its next jobs are for.
pub(crate) struct Line {
    link: Link,
    pub(crate) destination: Destination,
}

impl Line {
    /// Attempts the job as one for this line's destination.
    pub(crate) async fn attempt(&mut self, job: &Job) -> Attempt {
        let mut waiting = job.waiting.clone();
        waiting.queue.destination = self.destination.clone();
        let job = Job { waiting, content: job.content.clone(), full_transcript: job.full_transcript };
        self.link.attempt(&job).await
    }
}

impl std::ops::Deref for Line {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl std::ops::DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Link {
        &mut self.link
    }
}

/// Time-outs that a test can wait for, where a scenario is not about another one.
pub(crate) fn short() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(5),
        quit: Duration::from_millis(200),
        greeting: Duration::from_secs(10),
        hello: Duration::from_secs(10),
        handshake: Duration::from_secs(10),
        mail: Duration::from_secs(10),
        rcpt: Duration::from_secs(10),
        data: Duration::from_secs(10),
        block: Duration::from_secs(10),
        message: Duration::from_secs(10),
        envelope: Duration::from_secs(20),
    }
}

/// An attempt that must come to an end.
pub(crate) async fn attempt(link: &mut Line, job: &Job) -> Attempt {
    let attempt =
        tokio::time::timeout(PATIENCE, link.attempt(job)).await.expect("an attempt comes to an end");
    let numbers: Vec<u16> = attempt.outcomes.iter().map(|o| o.recipient).collect();
    let asked: Vec<u16> = job.waiting.recipients.iter().map(|r| r.number).collect();
    assert_eq!(numbers, asked, "one outcome for every recipient");
    attempt
}

/// Outcomes in short: `+250`, `-550 5.1.1`, `~4.4.2`.
pub(crate) fn outcomes(attempt: &Attempt) -> String {
    let show = |o: &mail::RecipientOutcome| {
        let mark = match o.outcome.disposition {
            Disposition::Delivered => '+',
            Disposition::Deferred => '~',
            Disposition::Refused => '-',
        };
        match o.outcome.code {
            Some(code) => format!("{mark}{code}"),
            None => format!("{mark}{}", o.outcome.status),
        }
    };
    attempt.outcomes.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// The words of the first outcome.
pub(crate) fn text(attempt: &Attempt) -> &str {
    &attempt.outcomes[0].outcome.text
}

pub(crate) fn smtp(at: SocketAddr) -> Destination {
    Destination::Smtp(host_port(at))
}

pub(crate) fn host_port(at: SocketAddr) -> HostPort {
    HostPort { host: at.ip().to_string().into(), port: at.port() }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// A program that is stopped when it is no longer needed.
pub(crate) struct Neighbour {
    child: Child,
    log: PathBuf,
}

impl Neighbour {
    /// Starts `program` of the Debian package `package`; what it says goes into a file in `dir`.
    pub(crate) fn start(program: &str, package: &str, dir: &Path, arguments: &[&str]) -> Self {
        let log = dir.join(format!("{}.log", program.rsplit('/').next().unwrap_or(program)));
        let output = fs::File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(dir).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                panic!("{program} is missing; install it: apt-get install {package}")
            }
            Err(e) => panic!("cannot start {program}: {e}"),
        };
        Self { child, log }
    }

    /// Waits until it takes TCP connections at `at`.
    pub(crate) async fn listening(mut self, at: SocketAddr) -> Self {
        let reached = tokio::time::timeout(PATIENCE, async {
            while tokio::net::TcpStream::connect(at).await.is_err() {
                self.assert_alive();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(reached.await.is_ok(), "it does not listen on {at}:\n{}", self.said());
        self
    }

    /// Waits until its socket takes connections.
    pub(crate) async fn listening_on(mut self, socket: &Path) -> Self {
        let reached = tokio::time::timeout(PATIENCE, async {
            while tokio::net::UnixStream::connect(socket).await.is_err() {
                self.assert_alive();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(reached.await.is_ok(), "it does not listen on {}:\n{}", socket.display(), self.said());
        self
    }

    fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended with {status}:\n{}", self.said());
        }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        let mut text = String::new();
        fs::File::open(&self.log).and_then(|mut f| f.read_to_string(&mut text)).unwrap();
        text
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // Politely first: programs with children of their own stop those.
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM);
        }
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address whose port is free for UDP and TCP alike.
pub(crate) fn free_address() -> SocketAddr {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        if UdpSocket::bind(at).is_ok() {
            return at;
        }
    }
    panic!("no port is free for both UDP and TCP")
}
