//! A connection, whether in the clear or under TLS, on either side. Reads and writes go straight to what is below:
//! one match, no buffer of our own.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use mail::TlsInfo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{ClientSide, ServerSide};
use crate::{ClientIdentity, NetError};

/// A connection.
pub enum Stream {
    /// TCP in the clear.
    Tcp(TcpStream),
    /// A Unix socket (LMTP on the same machine).
    Unix(UnixStream),
    /// TLS, and we are the server.
    Server(Box<ServerSide>),
    /// TLS, and we are the client.
    Client(Box<ClientSide>),
}

/// How a login is bound to the TLS connection it is made on (SCRAM-…-PLUS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// `tls-exporter` (RFC 9266): TLS 1.3.
    TlsExporter,
    /// `tls-server-end-point` (RFC 5929): the hash of the server's certificate.
    TlsServerEndPoint,
}

impl Binding {
    /// Its name in SCRAM's `p=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsExporter => "tls-exporter",
            Self::TlsServerEndPoint => "tls-server-end-point",
        }
    }
}

impl FromStr for Binding {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::TlsExporter, Self::TlsServerEndPoint].into_iter().find(|b| b.as_str() == name).ok_or(())
    }
}

impl Stream {
    /// What TLS negotiated; none in the clear.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Server(tls) => Some(tls.info()),
            Self::Client(tls) => Some(tls.info()),
        }
    }

    /// Whether it is under TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Server(_) | Self::Client(_))
    }

    /// Why the peer's certificate could not be verified, on a client connection that was made regardless.
    pub fn unverified_because(&self) -> Option<&str> {
        match self {
            Self::Client(tls) => tls.unverified_because(),
            _ => None,
        }
    }

    /// The certificate that we had ready on a client connection, whether or not the server asked for it.
    pub fn identity(&self) -> Option<&ClientIdentity> {
        match self {
            Self::Client(tls) => tls.identity(),
            _ => None,
        }
    }

    /// The data that binds a login to this connection; none where there is none of that kind: in the clear,
    /// `tls-exporter` below TLS 1.3, `tls-server-end-point` for certificates whose signature has no hash (Ed25519).
    pub fn channel_binding(&self, kind: Binding) -> Option<Vec<u8>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Server(tls) => tls.binding(kind),
            Self::Client(tls) => tls.binding(kind),
        }
    }

    /// The TCP connection's other end.
    ///
    /// # Errors
    /// What getpeername(2) says; `Unsupported` for Unix sockets.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().ok_or(io::ErrorKind::Unsupported)?.peer_addr()
    }

    /// The TCP connection's own end.
    ///
    /// # Errors
    /// What getsockname(2) says; `Unsupported` for Unix sockets.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().ok_or(io::ErrorKind::Unsupported)?.local_addr()
    }

    /// The TCP connection below; none for Unix sockets.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Unix(_) => None,
            Self::Server(tls) => Some(tls.stream.get_ref().0),
            Self::Client(tls) => Some(tls.stream.get_ref().0),
        }
    }

    /// The bare TCP connection, to put TLS on.
    pub(crate) fn into_tcp(self) -> Result<TcpStream, NetError> {
        match self {
            Self::Tcp(tcp) => Ok(tcp),
            other => Err(NetError::Bug(format!("cannot start TLS on {other:?}"))),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Tcp(_) => "Tcp",
            Self::Unix(_) => "Unix",
            Self::Server(_) => "ServerTls",
            Self::Client(_) => "ClientTls",
        };
        write!(f, "{kind}({:?})", self.peer_addr().ok())
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Server(s) => Pin::new(&mut s.stream).poll_read(cx, buf),
            Self::Client(s) => Pin::new(&mut s.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Self::Server(s) => Pin::new(&mut s.stream).poll_write(cx, buf),
            Self::Client(s) => Pin::new(&mut s.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Server(s) => Pin::new(&mut s.stream).poll_write_vectored(cx, bufs),
            Self::Client(s) => Pin::new(&mut s.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(s) => s.is_write_vectored(),
            Self::Unix(s) => s.is_write_vectored(),
            Self::Server(s) => s.stream.is_write_vectored(),
            Self::Client(s) => s.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
            Self::Server(s) => Pin::new(&mut s.stream).poll_flush(cx),
            Self::Client(s) => Pin::new(&mut s.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Server(s) => Pin::new(&mut s.stream).poll_shutdown(cx),
            Self::Client(s) => Pin::new(&mut s.stream).poll_shutdown(cx),
        }
    }
}
