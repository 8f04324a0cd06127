//! OpenSSL on the other side: handshakes both ways, and the same channel bindings by another implementation.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mail::Clock;
use net::{
    Binding, CertificateSource, ClientTls, ClientTlsConfig, DialOptions, Listener, ServerTls,
    ServerTlsConfig, Stream, Trust,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Authority, Neighbour, PATIENCE, as_child, child, find, free_address};

const LIMIT: Duration = Duration::from_secs(10);

fn openssl(dir: &Path, args: &[&str]) -> Vec<u8> {
    let program = find("openssl").expect("openssl is missing; install it: apt-get install openssl");
    let output = Command::new(program).current_dir(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn server_with(dir: &Path, certificate: &str, key: &str) -> ServerTls {
    let source = CertificateSource::Files { certificate: dir.join(certificate), key: dir.join(key) };
    let config = ServerTlsConfig { hostname: "relay.test".into(), data_dir: dir.into(), source };
    ServerTls::open(config, Clock::system()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

/// RFC 5929 by hand: the hash of the certificate, the hash being that of its signature.
fn end_point(dir: &Path, certificate: &str, hash: &str) -> String {
    openssl(dir, &["x509", "-in", certificate, "-outform", "DER", "-out", "leaf.der"]);
    let digest = openssl(dir, &["dgst", &format!("-{hash}"), "-r", "leaf.der"]);
    String::from_utf8(digest).unwrap().split(' ').next().unwrap().to_uppercase()
}

#[tokio::test]
async fn both_sides_have_the_same_bindings() {
    let dir = TempDir::new().unwrap();
    for (stem, options, hash) in [
        ("rsa256", vec!["-newkey", "rsa:2048", "-sha256"], "sha256"),
        ("rsa384", vec!["-newkey", "rsa:2048", "-sha384"], "sha384"),
        ("pss512", vec!["-newkey", "rsa:2048", "-sha512", "-sigopt", "rsa_padding_mode:pss"], "sha512"),
        ("sha1", vec!["-newkey", "rsa:2048", "-sha1"], "sha256"),
        ("ec384", vec!["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"], "sha384"),
        ("ed25519", vec!["-newkey", "ed25519"], ""),
    ] {
        let (pem, key) = (format!("{stem}.pem"), format!("{stem}.key"));
        let mut args = vec!["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=relay.test"];
        args.extend(["-addext", "subjectAltName=DNS:relay.test", "-out", &pem, "-keyout", &key]);
        args.extend(options);
        openssl(dir.path(), &args);
        let server = server_with(dir.path(), &pem, &key);
        let listener = Listener::bind(&["127.0.0.1:0".parse::<SocketAddr>().unwrap()]).unwrap();
        let at = listener.addresses().next().unwrap().to_string();
        let _client = Neighbour::start("openssl", "openssl", dir.path(), |c| {
            c.args(["s_client", "-connect", &at, "-servername", "relay.test", "-tls1_3", "-ign_eof"]);
            c.args(["-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"]);
        });
        let (stream, _) = listener.accept().await;
        let mut stream = server.accept(stream, LIMIT).await.unwrap();
        stream.write_all(b"220 relay.test\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let exporter = hex(&stream.channel_binding(Binding::TlsExporter).unwrap());
        wait_until(|| _client.said().contains("220 relay.test"), || _client.said()).await;
        assert!(
            _client.said().contains(&format!("Keying material: {exporter}")),
            "{stem}: {}",
            _client.said()
        );

        let ours = stream.channel_binding(Binding::TlsServerEndPoint).map(|b| hex(&b));
        let theirs = (!hash.is_empty()).then(|| end_point(dir.path(), &pem, hash));
        assert_eq!(ours, theirs, "{stem}");
    }
}

/// Servers as they are found in the wild: TLS 1.2 alone, certificates of version 1, of 1024 bits.
#[tokio::test]
async fn odd_servers_get_encryption_though_not_trust() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    authority.issue(&["relay.test"], &dir.path().join("good.pem"), &dir.path().join("good.key"));
    let made = |stem: &str, extra: &[&str]| {
        let (pem, key) = (format!("{stem}.pem"), format!("{stem}.key"));
        let subject = ["-subj", "/CN=relay.test", "-nodes", "-keyout", &key];
        openssl(dir.path(), &[&["req", "-new", "-out", "request.pem"], &subject[..], extra].concat());
        openssl(
            dir.path(),
            &["x509", "-req", "-in", "request.pem", "-signkey", &key, "-days", "30", "-out", &pem],
        );
    };
    made("version1", &["-newkey", "rsa:2048"]);
    made("weak", &["-newkey", "rsa:1024"]);
    let trust = ClientTlsConfig { ca_file: Some(dir.path().join("ca.pem")) };
    let client = ClientTls::new(&trust, Clock::system()).unwrap();

    for (stem, version, verified) in [
        ("good", "-tls1_3", "verified"),
        ("good", "-tls1_2", "verified"),
        ("version1", "-tls1_3", "unverified"),
        ("version1", "-tls1_2", "unverified"),
        ("weak", "-tls1_2", "unverified"),
    ] {
        let at = free_address();
        let server = Neighbour::start("openssl", "openssl", dir.path(), |c| {
            c.args([
                "s_server",
                "-accept",
                &at.to_string(),
                version,
                "-cipher",
                "DEFAULT@SECLEVEL=0",
                "-rev",
            ]);
            c.args(["-cert", &format!("{stem}.pem"), "-key", &format!("{stem}.key")]);
        });
        let server = server.listening(at).await;
        let near = DialOptions { allow_private: true, ..DialOptions::default() };
        let stream = net::dial(at, &near).await.unwrap();
        let connected = client.connect(stream, "relay.test", Trust::Opportunistic, LIMIT).await;
        let mut stream = connected.unwrap_or_else(|e| panic!("{stem} {version}: {e}\n{}", server.said()));
        assert_eq!(stream.tls_info().unwrap().verified, verified, "{stem} {version}");
        assert_eq!(verified == "verified", stream.unverified_because().is_none());
        assert_eq!(reversed(&mut stream).await, "RETLEH", "{stem} {version}");
    }
}

/// What `s_server -rev` makes of a line.
async fn reversed(stream: &mut Stream) -> String {
    stream.write_all(b"HELTER\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

#[tokio::test]
async fn roots_come_from_where_the_environment_says() {
    if let Some(dir) = as_child() {
        return verify_by_environment(Path::new(&dir)).await;
    }
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    authority.issue(&["relay.test"], &dir.path().join("good.pem"), &dir.path().join("good.key"));
    for (variable, works) in [("SSL_CERT_FILE", true), ("NOTHING", false)] {
        let test = "openssl::roots_come_from_where_the_environment_says";
        let mut child = child(test, dir.path().to_str().unwrap());
        let output = child.env(variable, dir.path().join("ca.pem")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("1 passed"), works, "{variable}: {said}");
        assert_eq!(said.contains("cannot be trusted"), !works, "{variable}: {said}");
    }
}

async fn verify_by_environment(dir: &Path) {
    let server = server_with(dir, "good.pem", "good.key");
    let client = ClientTls::new(&ClientTlsConfig::default(), Clock::system()).unwrap();
    let listener = Listener::bind(&["127.0.0.1:0".parse::<SocketAddr>().unwrap()]).unwrap();
    let near = DialOptions { allow_private: true, ..DialOptions::default() };
    let far = net::dial(listener.addresses().next().unwrap(), &near).await.unwrap();
    let (accepted, _) = listener.accept().await;
    let (_server, client) = tokio::join!(
        server.accept(accepted, LIMIT),
        client.connect(far, "relay.test", Trust::Verified, LIMIT)
    );
    client.unwrap_or_else(|e| panic!("{e}"));
}

async fn wait_until(done: impl Fn() -> bool, said: impl Fn() -> String) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{}", said());
}
