//! The way out through proxies that others have written: microsocks for SOCKS 5, HAProxy for the PROXY protocol.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use net::{DialOptions, Egress, NetError, dial, dial_first};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Neighbour, free_address};

/// A server that says who connects to it.
async fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, peer) = listener.accept().await.unwrap();
            stream.write_all(format!("220 {}\r\n", peer.ip()).as_bytes()).await.unwrap();
        }
    });
    at
}

fn through(egress: &str) -> DialOptions {
    DialOptions {
        timeout: Duration::from_secs(10),
        allow_private: true,
        egress: egress.parse().unwrap(),
        ..DialOptions::default()
    }
}

async fn greeting(target: SocketAddr, options: &DialOptions) -> Result<String, NetError> {
    let mut stream = dial(target, options).await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.map_err(|e| NetError::Peer(e.to_string()))?;
    Ok(said)
}

#[tokio::test]
async fn by_socks() {
    let dir = TempDir::new().unwrap();
    let (open, guarded) = (free_address(), free_address());
    let start = |at: SocketAddr, login: &[&str]| {
        let port = at.port().to_string();
        let mut arguments = vec!["-i", "127.0.0.1", "-p", &port];
        // Which address it connects from tells its connections apart.
        arguments.extend(["-b", "127.0.0.7"]);
        arguments.extend(login);
        Neighbour::start("microsocks", "microsocks", dir.path(), |c| {
            c.args(arguments);
        })
    };
    let _open = start(open, &[]).listening(open).await;
    let _guarded = start(guarded, &["-u", "me", "-P", "p@ss"]).listening(guarded).await;
    let target = target().await;
    let wanted = "220 127.0.0.7\r\n";
    assert_eq!(greeting(target, &through(&format!("socks5://{open}"))).await.unwrap(), wanted);
    let login = through(&format!("socks5://me:p%40ss@{guarded}"));
    assert_eq!(greeting(target, &login).await.unwrap(), wanted);
    assert_eq!(dial_first(&[target], &login).await.unwrap().address, target);

    let wrong = greeting(target, &through(&format!("socks5://me:other@{guarded}"))).await.unwrap_err();
    assert!(wrong.to_string().contains("does not take the password of me"), "{wrong}");
    let none = greeting(target, &through(&format!("socks5://{guarded}"))).await.unwrap_err();
    assert!(none.to_string().contains("wants a user name and password"), "{none}");
    let nobody = free_address();
    let refused = greeting(nobody, &through(&format!("socks5://{open}"))).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("cannot connect to {nobody}")), "{refused}");
    // What may not be reached directly is not asked of the proxy either.
    let strict = DialOptions { allow_private: false, ..through(&format!("socks5://{open}")) };
    let private = greeting(target, &strict).await.unwrap_err();
    assert!(matches!(private, NetError::PrivateTarget(_)), "{private}");
}

#[tokio::test]
async fn by_the_proxy_protocol() {
    let dir = TempDir::new().unwrap();
    let at = free_address();
    // Connects to what the header names as destination.
    let config = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n\
         listen egress\n  bind {at} accept-proxy\n  server out 0.0.0.0 source 127.0.0.8\n"
    );
    fs::write(dir.path().join("haproxy.cfg"), config).unwrap();
    let haproxy = Neighbour::start("haproxy", "haproxy", dir.path(), |c| {
        c.args(["-db", "-f", "haproxy.cfg"]);
    });
    let haproxy = haproxy.listening(at).await;
    let target = target().await;
    let options = DialOptions {
        source_v4: Some("127.0.0.9".parse().unwrap()),
        egress: Egress::Proxy { at },
        ..through("proxy://127.0.0.1:1")
    };
    assert_eq!(greeting(target, &options).await.unwrap(), "220 127.0.0.8\r\n", "{}", haproxy.said());
}
