//! HAProxy in front of us, in both versions of the PROXY protocol, health checks included.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use net::{Listener, NetError, Network, Peer, Stream, proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Neighbour, PATIENCE, free_address};

/// What came of one connection: the client as HAProxy tells it, and the stream behind the header.
type Told = (Result<Option<proxy::ProxyInfo>, NetError>, Stream, Peer);

async fn next(listener: &Listener, balancers: &[Network]) -> Told {
    let (mut stream, peer) = listener.accept().await;
    assert!(balancers.iter().any(|n| n.contains(peer.address.ip())));
    let info = proxy::read_header(&mut stream, Duration::from_secs(5)).await;
    (info, stream, peer)
}

async fn speaks(option: &str) {
    let dir = tempfile::TempDir::new().unwrap();
    let listener = Listener::bind(&["127.0.0.1:0".parse::<SocketAddr>().unwrap()]).unwrap();
    let at = listener.addresses().next().unwrap();
    let front = free_address();
    let config = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen mail\n  bind {front}\n  server relay {at} {option} check inter 50ms check-send-proxy\n"
    );
    fs::write(dir.path().join("haproxy.cfg"), config).unwrap();
    let haproxy = Neighbour::start("haproxy", "haproxy", dir.path(), |c| {
        c.args(["-db", "-f", "haproxy.cfg"]);
    });
    let haproxy = haproxy.listening(front).await;
    let client = tokio::spawn(async move {
        let mut client = TcpStream::connect(front).await.unwrap();
        client.write_all(b"EHLO client.example\r\n").await.unwrap();
        let mut greeting = [0; 4];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ");
        client.local_addr().unwrap()
    });

    let balancers: Vec<Network> = vec!["127.0.0.0/8".parse().unwrap()];
    let (mut checks, mut served) = (0, None);
    let all = timeout(PATIENCE, async {
        while checks < 2 || served.is_none() {
            let (info, mut stream, peer) = next(&listener, &balancers).await;
            let mut first = [0; 4];
            match info {
                // A check says in version 2 that it is HAProxy's own, and hangs up.
                Ok(None) => checks += 1,
                Ok(Some(info)) => {
                    if stream.read_exact(&mut first).await.is_ok() {
                        assert_eq!(&first, b"EHLO");
                        assert_ne!(info.source, peer.address);
                        assert_eq!(info.destination, front);
                        stream.write_all(b"220 ").await.unwrap();
                        served = Some((info.source, stream));
                    } else if option == "send-proxy" {
                        // In version 1 a check looks like a client that hangs up.
                        checks += 1;
                    }
                }
                Err(error) => assert!(matches!(error, NetError::Network { .. }), "{error}"),
            }
        }
    });
    assert!(
        all.await.is_ok(),
        "{checks} checks, served: {}; HAProxy says:\n{}",
        served.is_some(),
        haproxy.said()
    );
    assert_eq!(client.await.unwrap(), served.unwrap().0);
}

#[tokio::test]
async fn version_1() {
    speaks("send-proxy").await;
}

#[tokio::test]
async fn version_2() {
    speaks("send-proxy-v2").await;
}
