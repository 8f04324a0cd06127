//! Serves routers: on the management socket, whose peers are checked, and on TCP. Both are bounded: connections,
//! header size, and the time a client may take to send its headers.

use std::convert::Infallible;
use std::fs;
use std::io;
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
use tokio::net::{TcpListener, UnixListener, UnixStream};
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
    let own = nix::unistd::geteuid().as_raw();
    let accept = async || {
        loop {
            let (stream, _) = listener.accept().await?;
            match peer(&stream) {
                Ok(uid) if uid == 0 || uid == own => return Ok((stream, Actor::of_uid(uid))),
                Ok(uid) => {
                    tracing::warn!(uid, "refused on the management socket: neither root nor our own user")
                }
                Err(error) => {
                    tracing::warn!(%error, "refused on the management socket: the peer is not known")
                }
            }
        }
    };
    let with_actor = |actor: &Actor, request: &mut Request<Body>| {
        request.extensions_mut().insert(actor.clone());
    };
    serve(accept, with_actor, router, shutdown).await;
}

fn peer(stream: &UnixStream) -> io::Result<u32> {
    stream.peer_cred().map(|peer| peer.uid())
}

/// Serves health checks and metrics until `shutdown` is ready.
pub async fn serve_tcp(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let accept = async || listener.accept().await;
    let with_address = |address: &std::net::SocketAddr, request: &mut Request<Body>| {
        request.extensions_mut().insert(ConnectInfo(*address));
    };
    serve(accept, with_address, router, shutdown).await;
}

async fn serve<S, P>(
    accept: impl AsyncFn() -> io::Result<(S, P)>,
    mark: impl Fn(&P, &mut Request<Body>) + Clone + Send + 'static,
    router: Router,
    shutdown: impl Future<Output = ()>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_MAX);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = accept() => accepted,
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
        let (router, mark) = (router.clone(), mark.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            mark(&peer, &mut request);
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
