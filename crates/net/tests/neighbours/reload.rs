//! A certificate is renewed under the feet of 50 clients: none of them notices, the 51st sees the new one.

use std::time::Duration;

use mail::Clock;
use net::{
    Binding, CertificateSource, ClientTls, ClientTlsConfig, Listener, ServerTls, ServerTlsConfig, Stream,
    Trust,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Authority;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn live_sessions_survive_a_reload() {
    let dir = TempDir::new().unwrap();
    let (ca_file, certificate, key) =
        (dir.path().join("ca.pem"), dir.path().join("chain.pem"), dir.path().join("key.pem"));
    let authority = Authority::new();
    std::fs::write(&ca_file, authority.pem()).unwrap();
    authority.issue(&["relay.test"], &certificate, &key);
    let source = CertificateSource::Files { certificate: certificate.clone(), key: key.clone() };
    let config = ServerTlsConfig { hostname: "relay.test".into(), data_dir: dir.path().into(), source };
    let server = ServerTls::open(config, Clock::system()).unwrap();
    let client = ClientTls::new(&ClientTlsConfig { ca_file: Some(ca_file) }, Clock::system()).unwrap();

    let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let at = listener.addresses().next().unwrap();
    let echo = server.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await;
            let echo = echo.clone();
            tokio::spawn(async move {
                let mut stream = echo.accept(stream, LIMIT).await.unwrap();
                let mut line = [0; 6];
                while stream.read_exact(&mut line).await.is_ok() {
                    stream.write_all(&line).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });

    let mut live = Vec::new();
    for _ in 0..50 {
        live.push(connect(&client, at).await);
    }
    let before = fingerprint(&live[0]);
    authority.issue(&["relay.test"], &certificate, &key);
    server.reload().unwrap();

    for stream in &mut live {
        assert_eq!(fingerprint(stream), before);
        echo_once(stream).await;
    }
    // The same client holds a ticket of the old certificate; it must not come back to it.
    let after = connect(&client, at).await;
    assert_ne!(fingerprint(&after), before, "the new certificate is not shown");
    for stream in &mut live {
        echo_once(stream).await;
    }
}

async fn connect(client: &ClientTls, at: std::net::SocketAddr) -> Stream {
    let tcp = TcpStream::connect(at).await.unwrap();
    let mut stream = client.connect(Stream::Tcp(tcp), "relay.test", Trust::Verified, LIMIT).await.unwrap();
    echo_once(&mut stream).await;
    stream
}

async fn echo_once(stream: &mut Stream) {
    stream.write_all(b"NOOP\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"NOOP\r\n");
}

fn fingerprint(stream: &Stream) -> Vec<u8> {
    stream.channel_binding(Binding::TlsServerEndPoint).unwrap()
}
