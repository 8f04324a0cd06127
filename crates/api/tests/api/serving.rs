//! The socket and the TCP listener.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::common::*;

async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: posthouse\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn the_socket_is_private_takes_the_place_of_a_dead_one_and_stops() {
    let stand = stand().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("posthouse.sock");
    drop(api::bind_socket(&path).unwrap());
    assert!(path.exists(), "a process that died leaves its socket behind");
    let listener = api::bind_socket(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let stop = CancellationToken::new();
    let serving =
        tokio::spawn(api::serve_socket(listener, api::router(stand.clone()), stop.clone().cancelled_owned()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let answer = ask(&mut stream, "/api/status").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A connection that idles does not hold up the end.
    let _idle = UnixStream::connect(&path).await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(8), serving).await.unwrap().unwrap();
}

#[test]
fn a_path_too_long_for_a_socket_says_so() {
    let error = api::bind_socket(std::path::Path::new(&format!("/tmp/{}", "a".repeat(120)))).unwrap_err();
    assert!(error.to_string().contains("shorter data_dir"), "{error}");
}

#[tokio::test]
async fn tcp_tells_of_health_and_metrics_and_manages_nothing() {
    let stand = stand().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving =
        tokio::spawn(api::serve_tcp(listener, api::public(stand.clone()), stop.clone().cancelled_owned()));
    let get = async |path: &str| ask(&mut TcpStream::connect(address).await.unwrap(), path).await;
    assert!(get("/healthz").await.ends_with("ok\n"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/metrics").await.contains("posthouse_up 1"));
    for path in ["/api/status", "/api/orgs", "/../api/orgs", "/"] {
        assert!(get(path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    stand.asked.lock().not_ready = Some("the disk is full".into());
    let unready = get("/readyz").await;
    assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("the disk is full\n"), "{unready}");
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"), "the process is alive all the same");
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn metrics_are_for_their_networks() {
    use axum::extract::ConnectInfo;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;
    let router = api::public(stand().await);
    let mut request = Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(std::net::SocketAddr::from(([192, 0, 2, 1], 1))));
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn half_a_request_is_not_waited_for_for_ever() {
    let stand = stand().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(api::serve_tcp(listener, api::public(stand), std::future::pending()));
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /healthz HT").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the server closes it");
    let mut large = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(100_000));
    // It may close before all is written.
    let _ = large.write_all(head.as_bytes()).await;
    let mut rest = Vec::new();
    let _ = large.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

/// Whatever the socket's mode is: who is neither root nor the relay's user is not answered. Needs root, to be someone else.
#[tokio::test]
async fn other_users_are_not_answered() {
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("posthouse.sock");
    let listener = api::bind_socket(&path).unwrap();
    for open in [dir.path(), &path] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    tokio::spawn(api::serve_socket(listener, api::router(stand().await), std::future::pending()));
    let ask_as = async |uid: u32| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--fail", "--max-time", "10", "http://posthouse/api/status", "--unix-socket"]);
        curl.arg(&path).uid(uid);
        tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap()
    };
    let root = ask_as(0).await;
    assert!(root.status.success() && root.stdout.starts_with(b"{"), "{root:?}");
    let nobody = ask_as(65534).await;
    assert!(!nobody.status.success() && nobody.stdout.is_empty(), "{nobody:?}");
}
