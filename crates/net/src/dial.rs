//! Connections out: to one address or to the first of several that answers, directly or through a proxy.

mod egress;
mod socks;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use egress::{Egress, SocksLogin};

use crate::{NetError, Stream, is_public, proxy};

/// How long the next address waits for the one before it (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Connections under way to the addresses of one host at any time.
const AT_ONCE_MAX: usize = 4;

/// How to connect.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// Time for one address to answer; a proxy's part in it included.
    pub timeout: Duration,
    /// The address to connect from; of each family the one given is used, none leaves it to the system. Through a proxy
    /// it is what the PROXY protocol names, and SOCKS knows nothing of it.
    pub source_v4: Option<std::net::Ipv4Addr>,
    /// The same for IPv6.
    pub source_v6: Option<std::net::Ipv6Addr>,
    /// Whether private, loopback and other special addresses may be reached: true for hosts that the operator
    /// named, `dns.allow_private_targets` for those that the DNS named.
    pub allow_private: bool,
    /// Which way connections go.
    pub egress: Egress,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            source_v4: None,
            source_v6: None,
            allow_private: false,
            egress: Egress::Direct,
        }
    }
}

impl DialOptions {
    /// The source for connections to `target`.
    fn source(&self, target: SocketAddr) -> Option<IpAddr> {
        match target {
            SocketAddr::V4(_) => self.source_v4.map(IpAddr::from),
            SocketAddr::V6(_) => self.source_v6.map(IpAddr::from),
        }
    }
}

/// Connects to one address. The check for private targets is made here, on the very address that is connected to or
/// that a proxy is asked for, so that no later DNS answer can get around it.
///
/// # Errors
/// [`NetError::PrivateTarget`], [`NetError::Timeout`], [`NetError::Network`], or [`NetError::Peer`] when a proxy says no.
pub async fn dial(address: SocketAddr, options: &DialOptions) -> Result<Stream, NetError> {
    if !options.allow_private && !is_public(address.ip()) {
        return Err(NetError::PrivateTarget(address.ip()));
    }
    let what = match options.egress {
        Egress::Direct => "connecting",
        _ => "connecting through the proxy",
    };
    timeout(options.timeout, connect(address, options))
        .await
        .map_err(|_| NetError::Timeout { what, after: options.timeout })?
        .map(Stream::Tcp)
}

async fn connect(address: SocketAddr, options: &DialOptions) -> Result<TcpStream, NetError> {
    match &options.egress {
        Egress::Direct => direct(address, options.source(address), "cannot connect to").await,
        Egress::Socks5 { at, login } => {
            let mut tcp = direct(*at, None, "cannot connect to the SOCKS proxy at").await?;
            socks::ask(&mut tcp, address, login.as_ref()).await?;
            Ok(tcp)
        }
        Egress::Proxy { at } => {
            let mut tcp = direct(*at, None, "cannot connect to the proxy at").await?;
            let header = proxy::header(options.source(address), address)?;
            let failed = |e| NetError::network(format!("the proxy at {at} broke the connection"), e);
            tcp.write_all(&header).await.map_err(failed)?;
            Ok(tcp)
        }
    }
}

async fn direct(at: SocketAddr, source: Option<IpAddr>, what: &str) -> Result<TcpStream, NetError> {
    let failed = |e| NetError::network(format!("{what} {at}"), e);
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    if let Some(source) = source {
        socket
            .bind(SocketAddr::new(source, 0))
            .map_err(|e| NetError::network(format!("cannot use source address {source}"), e))?;
    }
    let stream = socket.connect(at).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// A connection to one of several addresses.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub stream: Stream,
    /// The address that answered.
    pub address: SocketAddr,
    /// The addresses that failed before it did.
    pub failed: Vec<(SocketAddr, NetError)>,
}

/// Connects to the first of `addresses`, tried in their order, that answers (RFC 8305): the next one is tried when the
/// one before has failed, or has said nothing for a quarter of a second. The others are given up.
///
/// # Errors
/// What each address failed with, in the order of failure; nothing when there are no addresses.
pub async fn dial_first(
    addresses: &[SocketAddr],
    options: &DialOptions,
) -> Result<Dialed, Vec<(SocketAddr, NetError)>> {
    let mut waiting = addresses.iter().copied();
    let mut under_way = JoinSet::new();
    let mut failed = Vec::new();
    let start = |under_way: &mut JoinSet<_>, address: SocketAddr| {
        let options = options.clone();
        under_way.spawn(async move { (address, dial(address, &options).await) });
    };
    if let Some(first) = waiting.next() {
        start(&mut under_way, first);
    }
    loop {
        let may_start = waiting.len() > 0 && under_way.len() < AT_ONCE_MAX;
        tokio::select! {
            biased;
            ended = under_way.join_next() => match ended {
                Some(Ok((address, Ok(stream)))) => return Ok(Dialed { stream, address, failed }),
                Some(Ok((address, Err(error)))) => {
                    failed.push((address, error));
                    if let Some(next) = waiting.next() {
                        start(&mut under_way, next);
                    }
                }
                Some(Err(_)) => {}
                None => match waiting.next() {
                    Some(next) => start(&mut under_way, next),
                    None => return Err(failed),
                },
            },
            () = sleep(STAGGER), if may_start => {
                if let Some(next) = waiting.next() {
                    start(&mut under_way, next);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn near() -> DialOptions {
        DialOptions { allow_private: true, timeout: Duration::from_secs(5), ..Default::default() }
    }

    #[tokio::test]
    async fn private_targets_are_refused_even_when_someone_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        assert!(dial(at, &near()).await.is_ok());
        let strict = DialOptions::default();
        for ip in [at.ip(), "::ffff:127.0.0.1".parse().unwrap(), "::1".parse().unwrap()] {
            let refused = dial(SocketAddr::new(ip, at.port()), &strict).await;
            assert!(matches!(refused, Err(NetError::PrivateTarget(_))), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn refusal_and_silence_are_told_apart() {
        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let failed = dial(closed, &near()).await;
        assert!(matches!(failed, Err(NetError::Network { .. })), "{failed:?}");

        // A full queue: the kernel drops what comes, as a firewall would.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let at = full.local_addr().unwrap().as_socket().unwrap();
        let hasty = DialOptions { timeout: Duration::from_millis(300), ..near() };
        let mut waiting = Vec::new();
        let failed = loop {
            match dial(at, &hasty).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10, "the queue is never full");
        };
        assert!(matches!(failed, NetError::Timeout { .. }), "{failed:?}");
    }

    #[tokio::test]
    async fn the_source_address_is_used() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = DialOptions { source_v4: Some("127.0.0.9".parse().unwrap()), ..near() };
        let _stream = dial(listener.local_addr().unwrap(), &options).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), "127.0.0.9".parse::<IpAddr>().unwrap());
    }

    /// An address of loopback where connections are neither taken nor refused, and what keeps it so.
    async fn silent() -> (SocketAddr, socket2::Socket, Vec<Stream>) {
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let at = full.local_addr().unwrap().as_socket().unwrap();
        let hasty = DialOptions { timeout: Duration::from_millis(200), ..near() };
        let mut waiting = Vec::new();
        while let Ok(stream) = dial(at, &hasty).await {
            waiting.push(stream);
            assert!(waiting.len() < 10, "the queue is never full");
        }
        (at, full, waiting)
    }

    #[tokio::test]
    async fn the_first_to_answer_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let (quiet, _socket, _queue) = silent().await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();

        let patient = DialOptions { timeout: Duration::from_secs(20), ..near() };
        let clock = mail::Clock::system();
        let begun = clock.mono();
        let dialed = dial_first(&[closed, quiet, open], &patient).await.unwrap();
        assert_eq!(dialed.address, open);
        assert_eq!(dialed.failed.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [closed]);
        assert!(clock.mono().since(begun) >= STAGGER, "the silent one was given no time");
        assert!(clock.mono().since(begun) < Duration::from_secs(10), "the silent one was waited for");

        // The first in order wins as long as it answers.
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let both = [open, other.local_addr().unwrap()];
        assert_eq!(dial_first(&both, &patient).await.unwrap().address, open);
    }

    #[tokio::test]
    async fn each_failure_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let failed =
            dial_first(&[closed, "10.0.0.1:25".parse().unwrap()], &DialOptions::default()).await.unwrap_err();
        assert_eq!(failed.len(), 2);
        assert!(failed.iter().all(|(_, error)| matches!(error, NetError::PrivateTarget(_))), "{failed:?}");
        assert!(dial_first(&[], &near()).await.unwrap_err().is_empty());
    }

    #[tokio::test]
    async fn a_proxy_is_told_whom_we_are_and_want() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: SocketAddr = "192.0.2.25:25".parse().unwrap();
        let options = DialOptions {
            source_v4: Some("198.51.100.7".parse().unwrap()),
            egress: Egress::Proxy { at: listener.local_addr().unwrap() },
            allow_private: true,
            ..near()
        };
        let _stream = dial(target, &options).await.unwrap();
        let mut at_proxy = Stream::Tcp(listener.accept().await.unwrap().0);
        let told = crate::proxy::read_header(&mut at_proxy, Duration::from_secs(5)).await.unwrap().unwrap();
        assert_eq!(told.source.ip(), "198.51.100.7".parse::<IpAddr>().unwrap());
        assert_eq!(told.destination, target);

        // What may not be reached directly may not be reached through a proxy.
        let strict = DialOptions { allow_private: false, ..options };
        let refused = dial("10.0.0.1:25".parse().unwrap(), &strict).await;
        assert!(matches!(refused, Err(NetError::PrivateTarget(_))), "{refused:?}");
    }
}
