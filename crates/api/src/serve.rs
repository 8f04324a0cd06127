//! Serves routers: on the management socket, whose peers are checked, and on TCP. Both are bounded: connections,
//! header size, and the time a client may take to send its headers.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::extract::Actor;

/// Connections to one listener at a time. Those above wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests may take to end once the relay stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Largest header section.
const HEADER_MAX: usize = 16 * 1024;

/// Why the socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system, or the operator: the socket cannot be made.
    #[error("the management socket {} cannot be made: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The operator: the path is longer than a socket's may be.
    #[error("the path of the management socket, {}, is too long ({length} octets; 107 at most): choose a shorter data_dir", path.display())]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
}

/// Makes the management socket: mode 0600, in place of one left behind by an earlier process. The caller holds the
/// lock of the data directory, so nobody else serves it.
///
/// # Errors
/// When the system refuses.
pub fn bind_socket(path: &Path) -> Result<UnixListener, ServeError> {
    let length = path.as_os_str().len();
    if length > 107 {
        return Err(ServeError::TooLong { path: path.to_owned(), length });
    }
    let fail = |source| ServeError::Socket { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    // Between bind and here the socket has the umask's mode; the uid check below holds meanwhile.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

/// Serves the management API until `shutdown` is ready. Only root and the relay's own user are answered.
pub async fn serve_socket(listener: UnixListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve(Doorkeeper { listener, own: nix::unistd::geteuid().as_raw() }, router, shutdown).await;
}

/// Serves health checks and metrics until `shutdown` is ready.
pub async fn serve_tcp(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve(listener, router, shutdown).await;
}

/// Lets clients in and marks their requests.
trait Door {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What is known of a client.
    type Peer: Clone + Send + Sync + 'static;

    /// The next client.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;
}

impl Door for TcpListener {
    type Stream = TcpStream;
    type Peer = ConnectInfo<SocketAddr>;

    async fn accept(&self) -> io::Result<(TcpStream, Self::Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        Ok((stream, ConnectInfo(address)))
    }
}

/// Asks who is on the other side of the socket.
struct Doorkeeper {
    listener: UnixListener,
    own: u32,
}

impl Door for Doorkeeper {
    type Stream = UnixStream;
    type Peer = Actor;

    async fn accept(&self) -> io::Result<(UnixStream, Actor)> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match stream.peer_cred().map(|peer| peer.uid()) {
                Ok(uid) if may_manage(uid, self.own) => return Ok((stream, Actor::of_uid(uid))),
                Ok(uid) => {
                    tracing::warn!(uid, "refused on the management socket: neither root nor our own user");
                }
                Err(error) => {
                    tracing::warn!(%error, "refused on the management socket: the peer is not known")
                }
            }
        }
    }
}

/// Whether this user may manage a relay that runs as `own`.
fn may_manage(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

async fn serve<D: Door>(door: D, router: Router, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_MAX);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, door.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "the HTTP listener could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            let router = router.clone();
            async move {
                Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {}))
            }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP connection ended");
            }
            drop(place);
        });
    }
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::debug!("HTTP requests were still open at the end");
    }
}
