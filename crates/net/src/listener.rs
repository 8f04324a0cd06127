//! Listening sockets: bound by us or handed over by systemd (socket activation).
//!
//! An accepted connection costs `accept4` and nothing else: `TCP_NODELAY` is set on the listening socket, from which
//! Linux lets the accepted ones inherit it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};

use crate::{NetError, Stream, normalise};

/// Connections that the kernel keeps for us while we are busy; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// Pause after an error of the whole process or machine (no more file descriptors, no memory), so that the accept
/// loop does not spin while nothing changes.
const PAUSE: Duration = Duration::from_millis(200);

/// The two ends of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client; IPv4 mapped into IPv6 is given as IPv4.
    pub address: SocketAddr,
    /// What we listen on; may be the wildcard address ([`Stream::local_addr`] knows better).
    pub listening: SocketAddr,
}

/// One or several listening sockets that are served alike.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<(TcpListener, SocketAddr)>,
    /// Which socket is asked first next time, so that a busy one cannot starve the others.
    turn: AtomicUsize,
}

impl Listener {
    /// Listens on all of `addresses`. IPv6 sockets take IPv6 alone (`IPV6_V6ONLY`), so that `0.0.0.0:25` and
    /// `[::]:25` can stand side by side. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Configuration`] when an address cannot be had: taken, not ours, or a privileged port.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, NetError> {
        let sockets = addresses.iter().map(|&at| bind_one(at).map_err(|e| explain_bind(at, &e)));
        Self::from_sockets(sockets.collect::<Result<_, _>>()?)
    }

    /// Serves sockets that listen already, see [`Activation`]. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Configuration`] when there is none, [`NetError::Network`] when one is not usable.
    pub fn from_sockets(sockets: Vec<std::net::TcpListener>) -> Result<Self, NetError> {
        if sockets.is_empty() {
            return Err(NetError::Configuration("a listener needs an address to listen on".into()));
        }
        let adopt = |socket: std::net::TcpListener| {
            socket.set_nonblocking(true)?;
            SockRef::from(&socket).set_tcp_nodelay(true)?;
            let at = socket.local_addr()?;
            Ok((TcpListener::from_std(socket)?, at))
        };
        let sockets = sockets
            .into_iter()
            .map(adopt)
            .collect::<io::Result<_>>()
            .map_err(|e| NetError::network("cannot use a listening socket", e))?;
        Ok(Self { sockets, turn: AtomicUsize::new(0) })
    }

    /// Where it listens, with the real ports where 0 was asked for.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().map(|(_, at)| *at)
    }

    /// The next connection. Errors of a connection that died in the queue are skipped; when the process has run out
    /// of file descriptors or the machine out of memory it says so in the log and waits. To be called from one
    /// task at a time; may be dropped at any moment without losing a connection.
    pub async fn accept(&self) -> (Stream, Peer) {
        let mut told = false;
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                (Ok((stream, address)), listening) => {
                    let address = SocketAddr::new(normalise(address.ip()), address.port());
                    return (Stream::Tcp(stream), Peer { address, listening });
                }
                (Err(error), listening) => {
                    if is_of_one_connection(&error) {
                        continue;
                    }
                    if !told {
                        warn!(%listening, %error, "cannot accept connections; raise LimitNOFILE if files ran out");
                        told = true;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<(io::Result<(TcpStream, SocketAddr)>, SocketAddr)> {
        let count = self.sockets.len();
        let first = if count == 1 { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) % count };
        for (socket, at) in self.sockets[first..].iter().chain(&self.sockets[..first]) {
            if let Poll::Ready(result) = socket.poll_accept(cx) {
                return Poll::Ready((result, *at));
            }
        }
        Poll::Pending
    }
}

/// Errors that accept(2) reports for the connection it would have returned: the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(code),
        Errno::ECONNABORTED
            | Errno::ECONNRESET
            | Errno::EINTR
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT
    )
}

fn bind_one(at: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain_bind(at: SocketAddr, error: &io::Error) -> NetError {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("; another program listens there (see: ss -ltnp 'sport = :{}')", at.port())
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root at the start or CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address".to_owned(),
        _ => String::new(),
    };
    NetError::Configuration(format!("cannot listen on {at}: {error}{advice}"))
}

/// Sockets that the service manager opened for us (sd_listen_fds(3)): `LISTEN_FDS`, named by `LISTEN_FDNAMES`.
///
/// In a systemd socket unit, `FileDescriptorName=` is the name of the `[[listener]]` that it is for.
#[derive(Debug, Default)]
pub struct Activation {
    sockets: Vec<(String, std::net::TcpListener)>,
}

impl Activation {
    /// Takes over what the environment names; nothing when it names nothing for this process. To be called once,
    /// early.
    ///
    /// # Errors
    /// [`NetError::Configuration`] when a descriptor is no listening TCP socket.
    pub fn from_env() -> Result<Self, NetError> {
        let mut given = listenfd::ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = Vec::with_capacity(given.len());
        for number in 0..given.len() {
            let name = names.next().filter(|n| !n.is_empty()).unwrap_or("unknown").to_owned();
            let socket = given.take_tcp_listener(number).map_err(|e| {
                NetError::Configuration(format!(
                    "socket {name:?} handed over by the service manager is no listening TCP socket: {e}; use \
                     ListenStream=address:port in the socket unit"
                ))
            })?;
            sockets.extend(socket.map(|s| (name, s)));
        }
        if !sockets.is_empty() {
            info!(count = sockets.len(), "took over sockets from the service manager");
        }
        Ok(Self { sockets })
    }

    /// Takes the sockets of the listener `name`; empty when there are none for it.
    pub fn take(&mut self, name: &str) -> Vec<std::net::TcpListener> {
        let (taken, left) = std::mem::take(&mut self.sockets).into_iter().partition(|(n, _)| n == name);
        self.sockets = left;
        let taken: Vec<(String, std::net::TcpListener)> = taken;
        taken.into_iter().map(|(_, socket)| socket).collect()
    }

    /// Names of the sockets that nobody took: probably misspelt.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn several_addresses_of_both_families_are_served() {
        let listener = Listener::bind(&addresses(&["127.0.0.1:0", "[::1]:0"])).unwrap();
        let at: Vec<_> = listener.addresses().collect();
        for &at in &at {
            let mut client = TcpStream::connect(at).await.unwrap();
            let (mut server, peer) = listener.accept().await;
            assert_eq!(peer.listening, at);
            assert_eq!(peer.address, client.local_addr().unwrap());
            assert!(
                matches!(&server, Stream::Tcp(s) if s.nodelay().unwrap()),
                "TCP_NODELAY is not inherited"
            );
            server.write_all(b"220").await.unwrap();
            let mut greeting = [0; 3];
            client.read_exact(&mut greeting).await.unwrap();
            assert_eq!(&greeting, b"220");
        }
    }

    #[tokio::test]
    async fn both_wildcards_share_a_port() {
        let v4 = Listener::bind(&addresses(&["0.0.0.0:0"])).unwrap();
        let port = v4.addresses().next().unwrap().port();
        let v6 = Listener::bind(&[SocketAddr::new("::".parse().unwrap(), port)]);
        assert!(v6.is_ok(), "{v6:?}");
    }

    #[tokio::test]
    async fn a_taken_address_is_explained() {
        let first = Listener::bind(&addresses(&["127.0.0.1:0"])).unwrap();
        let at = first.addresses().next().unwrap();
        let error = Listener::bind(&[at]).unwrap_err().to_string();
        assert!(error.contains("another program listens there"), "{error}");
        let error = Listener::bind(&addresses(&["192.0.2.1:0"])).unwrap_err().to_string();
        assert!(error.contains("does not have that address"), "{error}");
    }
}
