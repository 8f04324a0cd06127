//! One connection: reads, feeds the session, answers its questions, writes. One read and one write for each batch of
//! commands, however many they are.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use mail::{Mono, OrgId, Reply};
use net::{Binding, Network, Stream};
use smtp::grammar::XClient;
use smtp::sasl::{BindingKind, ChannelBinding, Password};
use smtp::server::{Connection as Facts, Envelope, Session, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tracing::{debug, info};

use crate::alarm::Alarm;
use crate::auth;
use crate::backend::{Backend, Client, MailAsk, RcptAsk};
use crate::intake::Intake;
use crate::limits::Counted;
use crate::meters::Meters;
use crate::policy::{ListenerConfig, Mode, Policy};
use crate::wire;

/// Room for reading commands and most messages. A session that waits for a command keeps no more than this.
const ROOM: usize = 8 * 1024;
/// Room for reading content that filled the usual room.
const ROOM_FOR_MORE: usize = 32 * 1024;
/// How long a TLS handshake or a PROXY header may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long a session may take to finish its transaction when the service stops.
const STOPPING: Duration = Duration::from_secs(30);
/// How long, and for how many octets, a client is listened to after the last reply, so that it can read that.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OCTETS: usize = 256 * 1024;

/// What the sessions of a listener share, until the configuration changes.
pub(crate) struct Shared<B> {
    pub(crate) backend: B,
    pub(crate) policy: Arc<Policy>,
    pub(crate) listener: Arc<ListenerConfig>,
    pub(crate) smtp: Arc<smtp::server::Config>,
    pub(crate) meters: Meters,
    pub(crate) shutdown: CancellationToken,
}

/// Why a session ended before its end.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Network(#[from] net::NetError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the client went away")]
    Gone,
    #[error("the client does not read")]
    Deaf,
    #[error("too many connections from this client")]
    TooMany,
    #[error("there is no certificate, so nobody can connect here")]
    NoTls,
}

pub(crate) fn any(networks: &[Network], address: SocketAddr) -> bool {
    networks.iter().any(|n| n.contains(address.ip()))
}

/// Serves a connection to its end.
pub(crate) async fn run<B: Backend>(
    shared: Arc<Shared<B>>,
    stream: Stream,
    peer: SocketAddr,
    counted: Counted,
) {
    shared.meters.connections.increment(1);
    shared.meters.open.increment(1.0);
    let mut messages = 0;
    if let Err(end) = serve(&shared, stream, peer, counted, &mut messages).await {
        debug!(listener = %shared.listener.name, client = %peer, %end, "session broke off");
    }
    debug!(listener = %shared.listener.name, client = %peer, messages, "session over");
    shared.meters.open.decrement(1.0);
}

async fn serve<B: Backend>(
    shared: &Shared<B>,
    mut stream: Stream,
    connected: SocketAddr,
    mut counted: Counted,
    messages: &mut u32,
) -> Result<(), End> {
    let mut peer = connected;
    if any(&shared.listener.proxy_protocol, connected)
        && let Some(told) = Box::pin(net::proxy::read_header(&mut stream, HANDSHAKE)).await?
    {
        peer = told.source;
    }
    if counted.of_client(peer.ip(), shared.policy.limits.connections_per_address).is_err() {
        shared.meters.turned_away.increment(1);
        if shared.listener.mode != Mode::Submissions {
            let _ = timeout(LINGER, stream.write_all(crate::serve::TOO_MANY_FROM_CLIENT)).await;
        }
        return Err(End::TooMany);
    }
    if shared.listener.mode == Mode::Submissions {
        let tls = shared.policy.tls.as_ref().ok_or(End::NoTls)?;
        let accepted = Box::pin(tls.accept(stream, HANDSHAKE)).await;
        stream = accepted.inspect_err(|_| shared.meters.tls_failed.increment(1))?;
    }
    let client = Client {
        listener: shared.listener.clone(),
        peer,
        helo: None,
        tls: stream.tls_info(),
        identity: None,
    };
    let session = Session::new(shared.smtp.clone(), facts(shared, &stream, peer));
    let mut conversation = Conversation {
        shared,
        stream,
        session,
        client,
        counted,
        buffer: BytesMut::new(),
        scratch: Vec::new(),
        plenty: false,
        intake: None,
        org: OrgId::DEFAULT,
        began: shared.backend.clock().mono(),
        content_began: Mono::default(),
        stopping: None,
    };
    while let Ended::ForTls = conversation.run(messages).await? {
        // What is large and rare is boxed: the task of a session is copied when it is made, and stays as large as the
        // largest of what it ever waits for.
        conversation = Box::pin(conversation.start_tls()).await?;
    }
    Ok(())
}

/// Why a conversation came to an end as it should.
enum Ended {
    Over,
    /// It goes on inside TLS.
    ForTls,
}

/// What the session needs to know of its connection.
fn facts<B>(shared: &Shared<B>, stream: &Stream, peer: SocketAddr) -> Facts {
    let listener = &shared.listener;
    let mut bindings = Vec::new();
    if stream.is_tls() && listener.auth && shared.policy.scram {
        let kinds = [
            (Binding::TlsExporter, BindingKind::Exporter),
            (Binding::TlsServerEndPoint, BindingKind::ServerEndPoint),
        ];
        let found = kinds.into_iter().filter_map(|(binding, kind)| {
            stream.channel_binding(binding).map(|data| ChannelBinding { kind, data })
        });
        bindings.extend(found);
    }
    Facts {
        tls: stream.is_tls(),
        bindings,
        auth_in_clear: any(&listener.auth_without_tls, peer),
        xclient: any(&listener.xclient, peer),
    }
}

struct Conversation<'a, B> {
    shared: &'a Shared<B>,
    stream: Stream,
    session: Session,
    client: Client,
    counted: Counted,
    buffer: BytesMut,
    /// For header sections of submissions; kept for its room.
    scratch: Vec<u8>,
    /// Whether the last read filled its room.
    plenty: bool,
    intake: Option<Intake>,
    /// Whose mail the open transaction is.
    org: OrgId,
    began: Mono,
    content_began: Mono,
    /// When the service was told to stop.
    stopping: Option<Mono>,
}

impl<B: Backend> Conversation<'_, B> {
    async fn run(&mut self, messages: &mut u32) -> Result<Ended, End> {
        let shared = self.shared;
        let mut stop = pin!(shared.shutdown.cancelled());
        let first = shared.policy.limits.idle;
        let rings = shared.backend.clock().mono().plus(first);
        let mut alarm = Alarm { sleep: pin!(sleep(first)), rings };
        loop {
            match self.session.input(&mut self.buffer) {
                Step::Read => {
                    self.flush(false).await?;
                    self.read(stop.as_mut(), &mut alarm).await?;
                }
                Step::Content(piece) => {
                    let limits = &self.shared.policy.limits;
                    if let Some(intake) = &mut self.intake
                        && let Err(reply) = intake.write(piece, &mut self.scratch, limits).await
                    {
                        self.abandoned(&reply);
                        self.session.abandon(reply);
                    }
                }
                Step::Mail { helo, envelope } => {
                    self.client.is_called(helo);
                    let ask = MailAsk { client: &self.client, reverse_path: &envelope.reverse_path };
                    let answer = self.shared.backend.mail(ask).await;
                    let answer = answer.map(|org| self.org = org);
                    self.answer(answer);
                }
                Step::Rcpt { envelope, recipient } => {
                    let reverse_path = &envelope.reverse_path;
                    let ask = RcptAsk { client: &self.client, org: self.org, reverse_path, recipient };
                    let answer = self.shared.backend.rcpt(ask).await;
                    if answer.is_err() {
                        self.shared.meters.recipients_refused.increment(1);
                    }
                    self.answer(answer);
                }
                Step::Begin { esmtp, envelope } => {
                    let shared = self.shared;
                    self.content_began = shared.backend.clock().mono();
                    let begun =
                        Intake::begin(&shared.backend, &shared.policy, &self.client, esmtp, envelope).await;
                    let answer = begun.map(|intake| self.intake = Some(intake));
                    self.answer(answer);
                }
                Step::Abandoned(reply) => self.abandoned(&reply),
                Step::End(envelope) => {
                    self.end(envelope).await;
                    self.scratch.shrink_to(ROOM);
                    *messages = self.session.messages();
                }
                Step::Password { login, password } => Box::pin(self.password(login, password)).await,
                Step::Verifier { login } => Box::pin(self.verifier(login)).await,
                Step::Scram { login, proven } => Box::pin(self.scram(login, proven)).await,
                Step::XClient(told) => self.become_client(told),
                Step::StartTls => return Ok(Ended::ForTls),
                Step::Close => return self.close().await.map(|()| Ended::Over),
            }
        }
    }

    async fn password(&mut self, login: String, password: Password) {
        let Shared { backend, meters, .. } = self.shared;
        let verdict = auth::password(backend, meters, &mut self.client, login, password).await;
        self.session.authenticated(verdict);
    }

    async fn verifier(&mut self, login: String) {
        let peer = self.client.peer.ip();
        self.session.verifier(auth::verifier(&self.shared.backend, peer, &login).await);
    }

    async fn scram(&mut self, login: String, proven: bool) {
        let Shared { backend, meters, .. } = self.shared;
        let verdict = auth::scram(backend, meters, &mut self.client, &login, proven).await;
        self.session.authenticated(verdict);
    }

    fn answer(&mut self, answer: Result<(), Reply>) {
        match answer {
            Ok(()) => self.session.allow(),
            Err(reply) => {
                self.log_refusal(&reply);
                self.session.refuse(&reply);
            }
        }
    }

    /// The message that is coming in will be refused: gives its room back.
    fn abandoned(&mut self, reply: &Reply) {
        self.shared.meters.messages_refused.increment(1);
        self.intake = None;
        self.log_refusal(reply);
    }

    fn log_refusal(&self, reply: &Reply) {
        let (listener, client) = (&self.shared.listener.name, self.client.peer);
        info!(%listener, %client, reply = ?reply.to_string(), "refused");
    }

    /// The content is complete: stores and admits it.
    async fn end(&mut self, envelope: Envelope) {
        let Shared { backend, meters, .. } = self.shared;
        let Some(intake) = self.intake.take() else { return };
        let admitted = match intake.finish(backend, &self.client, self.org, envelope).await {
            Ok(submission) => {
                let size = submission.message.size;
                backend.admit(submission).await.inspect(|_| meters.octets.increment(size))
            }
            Err(reply) => Err(reply),
        };
        match admitted {
            Ok(id) => {
                meters.messages.increment(1);
                self.session.accepted(id);
            }
            Err(reply) => {
                meters.messages_refused.increment(1);
                self.answer(Err(reply));
            }
        }
    }

    /// Writes what the session has to say. Nearly always the socket takes it at once: then there is no waiting, and no
    /// clock to watch it. `last`: the connection is closed right behind it.
    async fn flush(&mut self, last: bool) -> Result<(), End> {
        let out = self.session.output();
        let sent = wire::send_now(&self.stream, out, last);
        out.advance(sent);
        if out.is_empty() {
            out.clear();
            return Ok(());
        }
        let stream = &mut self.stream;
        let write = async {
            stream.write_all(out).await?;
            // TLS may hold octets back; TCP does not.
            if stream.is_tls() { stream.flush().await } else { Ok(()) }
        };
        timeout(self.shared.policy.limits.idle, write).await.map_err(|_| End::Deaf)??;
        out.clear();
        Ok(())
    }

    /// Reads once, as long as the client's time lasts.
    async fn read(
        &mut self,
        mut stop: Pin<&mut WaitForCancellationFuture<'_>>,
        alarm: &mut Alarm<'_>,
    ) -> Result<(), End> {
        let room = if self.plenty && self.session.in_content() { ROOM_FOR_MORE } else { ROOM };
        if self.buffer.is_empty() && self.buffer.capacity() > room {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(room);
        let clock = self.shared.backend.clock();
        let now = clock.mono();
        let (patience, complaint) = self.patience(now);
        let deadline = now.plus(patience);
        alarm.by(deadline, now);
        let got = loop {
            tokio::select! {
                biased;
                got = self.stream.read_buf(&mut self.buffer) => break got?,
                () = stop.as_mut(), if self.stopping.is_none() => {
                    self.stopping = Some(clock.mono());
                    self.session.shut_down();
                    return Ok(());
                }
                () = alarm.sleep.as_mut() => {
                    let now = clock.mono();
                    if now >= deadline {
                        self.session.time_out(complaint);
                        return Ok(());
                    }
                    alarm.again(deadline, now);
                }
            }
        };
        if got == 0 {
            return Err(End::Gone);
        }
        self.plenty = got >= ROOM;
        Ok(())
    }

    /// How long to wait for the client, and what to say when that is over.
    fn patience(&self, now: Mono) -> (Duration, &'static str) {
        let limits = &self.shared.policy.limits;
        let (left, complaint) = if self.session.in_content() {
            let left = limits.content.saturating_sub(now.since(self.content_began));
            (left, "The message took too long; closing")
        } else {
            // A transaction that is open may run over, but not for ever.
            let more = if self.session.in_transaction() { limits.content } else { Duration::ZERO };
            let left = (limits.session + more).saturating_sub(now.since(self.began));
            (left, "The session took too long; closing")
        };
        let (left, complaint) = match self.stopping.map(|at| STOPPING.saturating_sub(now.since(at))) {
            Some(stop) if stop < left => (stop, "The service is shutting down; try again in a moment"),
            _ => (left, complaint),
        };
        if left < limits.idle {
            (left, complaint)
        } else {
            (limits.idle, "Nothing was said for too long; closing")
        }
    }

    async fn start_tls(mut self) -> Result<Self, End> {
        self.flush(false).await?;
        let shared = self.shared;
        let tls = shared.policy.tls.as_ref().ok_or(End::NoTls)?;
        // Nothing that was read in the clear may count inside.
        self.buffer.clear();
        let accepted = tls.accept(self.stream, HANDSHAKE).await;
        let stream = accepted.inspect_err(|_| shared.meters.tls_failed.increment(1))?;
        self.client.tls = stream.tls_info();
        self.client.identity = None;
        self.session.tls_started(facts(shared, &stream, self.client.peer));
        Ok(Self { stream, ..self })
    }

    /// XCLIENT: the client is another one.
    fn become_client(&mut self, told: XClient) {
        let address = told.address.unwrap_or(self.client.peer.ip());
        let port = told.port.unwrap_or(self.client.peer.port());
        self.client.peer = SocketAddr::new(address.to_canonical(), port);
        self.client.helo = told.helo;
        self.client.identity = None;
        let limit = self.shared.policy.limits.connections_per_address;
        self.session.client_changed(facts(self.shared, &self.stream, self.client.peer));
        if self.counted.of_client(self.client.peer.ip(), limit).is_err() {
            self.shared.meters.turned_away.increment(1);
            self.session.time_out("Too many connections from this client; closing");
        }
    }

    /// The last words, and time for the client to read them.
    async fn close(&mut self) -> Result<(), End> {
        let spoke = !self.session.output().is_empty();
        let is_last = self.session.has_quit() && !self.stream.is_tls();
        self.flush(is_last).await?;
        if is_last {
            return Ok(());
        }
        let farewell = async {
            self.stream.shutdown().await?;
            // Closing with octets unread would make the kernel tear down the connection, and the last reply with it.
            let mut left = LINGER_OCTETS;
            while spoke && !self.session.has_quit() && left > 0 {
                self.buffer.clear();
                self.buffer.reserve(ROOM);
                match self.stream.read_buf(&mut self.buffer).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            Ok::<_, std::io::Error>(())
        };
        timeout(LINGER, farewell).await.unwrap_or(Ok(()))?;
        Ok(())
    }
}
