//! Both sides of TLS against each other, and certificate files as people leave them lying about.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mail::{ManualClock, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{Binding, NetError, Stream};

const LIMIT: Duration = Duration::from_secs(10);

/// A private certificate authority and a directory to keep its files in.
struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let dir = TempDir::new().unwrap();
        parameters
            .distinguished_name
            .push(DnType::CommonName, format!("Authority of {}", dir.path().display()));
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for `name` in `stem.pem`, its key in `stem.key`.
    fn issue(&self, stem: &str, name: &str, years: (i32, i32)) -> CertificateSource {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let (chain, key_file) = (self.path(&format!("{stem}.pem")), self.path(&format!("{stem}.key")));
        fs::write(&chain, format!("{}{}", certificate.pem(), self.issuer.pem())).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        CertificateSource::Files { certificate: chain, key: key_file }
    }

    fn server(&self, source: CertificateSource) -> ServerTls {
        ServerTls::open(self.config(source), Clock::system()).unwrap()
    }

    fn config(&self, source: CertificateSource) -> ServerTlsConfig {
        ServerTlsConfig { hostname: "relay.test".into(), data_dir: self.path("data"), source }
    }

    fn client(&self) -> ClientTls {
        ClientTls::new(&ClientTlsConfig { ca_file: Some(self.path("ca.pem")) }, Clock::system()).unwrap()
    }
}

/// Two ends of a TCP connection: server's, client's.
async fn pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Stream::Tcp(listener.accept().await.unwrap().0), Stream::Tcp(client))
}

/// A handshake of both: the server's and the client's end.
async fn handshake(
    server: &ServerTls,
    client: &ClientTls,
    name: &str,
    trust: Trust,
) -> (Result<Stream, NetError>, Result<Stream, NetError>) {
    let (near, far) = pair().await;
    tokio::join!(server.accept(near, LIMIT), client.connect(far, name, trust, LIMIT))
}

#[tokio::test]
async fn a_verified_connection_carries_bytes_and_tells_about_itself() {
    let ca = Authority::new();
    let server = ca.server(ca.issue("relay", "relay.test", (2020, 2100)));
    let (server, client) = handshake(&server, &ca.client(), "relay.test", Trust::Verified).await;
    let (mut server, mut client) = (server.unwrap(), client.unwrap());

    server.write_all(b"220 relay.test\r\n").await.unwrap();
    server.flush().await.unwrap();
    let mut greeting = [0; 16];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 relay.test\r\n");

    let (theirs, ours) = (server.tls_info().unwrap(), client.tls_info().unwrap());
    assert_eq!((theirs.version.as_str(), theirs.verified.as_str()), ("TLSv1.3", ""));
    assert_eq!(ours.verified, "verified");
    assert!(ours.cipher.starts_with("TLS_AES_") && ours.cipher == theirs.cipher, "{ours:?}");
    for kind in [Binding::TlsExporter, Binding::TlsServerEndPoint] {
        let binding = server.channel_binding(kind).unwrap();
        assert_eq!(binding.len(), 32, "{kind:?}");
        assert_eq!(Some(binding), client.channel_binding(kind), "{kind:?}");
    }
    // close_notify reaches the other side as a clean end.
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut greeting).await.unwrap(), 0);
}

#[tokio::test]
async fn tls_1_2_works_and_has_no_exporter_binding() {
    let ca = Authority::new();
    let server = ca.server(ca.issue("relay", "relay.test", (2020, 2100)));
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(ca.client().roots())
        .with_no_client_auth();
    let (near, far) = pair().await;
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("relay.test").unwrap();
    let (server, client) =
        tokio::join!(server.accept(near, LIMIT), connector.connect(name, far.into_tcp().unwrap()));
    let (server, _client) = (server.unwrap(), client.unwrap());
    let info = server.tls_info().unwrap();
    assert_eq!(info.version, "TLSv1.2");
    assert!(info.cipher.starts_with("TLS_ECDHE_"), "{}", info.cipher);
    assert_eq!(server.channel_binding(Binding::TlsExporter), None);
    assert!(server.channel_binding(Binding::TlsServerEndPoint).is_some());
}

#[tokio::test]
async fn what_cannot_be_verified_is_refused_or_on_record() {
    let ca = Authority::new();
    let other = Authority::new();
    for (source, client, reason) in [
        (ca.issue("name", "elsewhere.test", (2020, 2100)), ca.client(), "made out for other names"),
        (ca.issue("old", "relay.test", (2020, 2021)), ca.client(), "it has expired"),
        (ca.issue("early", "relay.test", (2090, 2100)), ca.client(), "not valid yet"),
        (ca.issue("foreign", "relay.test", (2020, 2100)), other.client(), "issuer is not trusted"),
        (CertificateSource::SelfSigned, ca.client(), "issuer is not trusted"),
    ] {
        let server = ca.server(source);
        let (_, refused) = handshake(&server, &client, "relay.test", Trust::Verified).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, NetError::Untrusted { .. }), "{reason}: {error}");
        assert!(error.to_string().contains(reason), "{reason}: {error}");

        let (_, connected) = handshake(&server, &client, "relay.test", Trust::Opportunistic).await;
        let connected = connected.unwrap();
        assert_eq!(connected.tls_info().unwrap().verified, "unverified");
        assert!(connected.unverified_because().unwrap().contains(reason), "{reason}");
    }
    // A good one is found good on the way that asks for nothing, too.
    let server = ca.server(ca.issue("relay", "relay.test", (2020, 2100)));
    let client = ca.client();
    for resumed in [false, true] {
        let (near, connected) = handshake(&server, &client, "relay.test", Trust::Opportunistic).await;
        let (mut near, mut connected) = (near.unwrap(), connected.unwrap());
        assert_eq!(connected.tls_info().unwrap().verified, "verified");
        let Stream::Client(side) = &connected else { panic!("{connected:?}") };
        let kind = side.stream.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), resumed, "{kind:?}");
        assert_eq!(
            near.channel_binding(Binding::TlsServerEndPoint),
            connected.channel_binding(Binding::TlsServerEndPoint)
        );
        // The ticket comes with the first bytes.
        near.write_all(b"2").await.unwrap();
        near.flush().await.unwrap();
        connected.read_exact(&mut [0]).await.unwrap();
    }
}

#[tokio::test]
async fn garbage_and_silence_end_a_handshake() {
    let ca = Authority::new();
    let server = ca.server(CertificateSource::SelfSigned);
    let (near, mut far) = pair().await;
    far.write_all(b"EHLO client.example\r\n").await.unwrap();
    let refused = server.accept(near, LIMIT).await;
    assert!(matches!(refused, Err(NetError::Peer(_))), "{refused:?}");

    let (near, far) = pair().await;
    let refused = server.accept(near, Duration::from_millis(50)).await;
    assert!(matches!(refused, Err(NetError::Timeout { .. })), "{refused:?}");
    drop(far);

    let (mut near, far) = pair().await;
    near.write_all(b"220 this is no TLS\r\n").await.unwrap();
    let refused = ca.client().connect(far, "relay.test", Trust::Opportunistic, LIMIT).await;
    assert!(matches!(refused, Err(NetError::Peer(_))), "{refused:?}");
}

#[test]
fn the_self_signed_certificate_is_private_and_kept() {
    let ca = Authority::new();
    let open = |hostname: &str, clock: Clock| {
        let config =
            ServerTlsConfig { hostname: hostname.into(), ..ca.config(CertificateSource::SelfSigned) };
        ServerTls::open(config, clock).unwrap().facts()
    };
    let start = ManualClock::new(Timestamp(1_795_503_600_000));
    let first = open("relay.test", start.clock());
    assert_eq!(first.names, ["relay.test"]);
    assert!(first.self_signed && first.is_valid_at(start.clock().now()));
    let file = ca.path("data/tls/self-signed.pem");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

    let content = fs::read(&file).unwrap();
    assert_eq!(open("relay.test", start.clock()), first);
    assert_eq!(fs::read(&file).unwrap(), content, "it was made anew without need");
    // Another name, ten years later, or damaged: a new one.
    assert_eq!(open("mx.test", start.clock()).names, ["mx.test"]);
    start.advance(Duration::from_secs(11 * 365 * 24 * 3600));
    assert!(open("mx.test", start.clock()).not_before > first.not_after);
    fs::write(&file, "damaged").unwrap();
    assert_eq!(open("mx.test", start.clock()).names, ["mx.test"]);
}

fn complaint(certificate: &Path, key: &Path) -> String {
    match Pair::load(certificate, key) {
        Err(NetError::Configuration(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unusable_files_are_explained() {
    let ca = Authority::new();
    ca.issue("a", "a.test", (2020, 2100));
    ca.issue("b", "b.test", (2020, 2100));
    let (pem, key) = (ca.path("a.pem"), ca.path("a.key"));
    assert!(Pair::load(&pem, &key).is_ok());

    let expect = |certificate: &Path, key: &Path, words: &str| {
        let text = complaint(certificate, key);
        assert!(text.contains(words), "{words:?} not in {text:?}");
    };
    expect(&ca.path("none.pem"), &key, "cannot read");
    expect(&pem, &ca.path("none.key"), "tls.key");
    expect(&key, &pem, "swapped");
    expect(&pem, &pem, "swapped");
    expect(&pem, &ca.path("b.key"), "does not belong");

    let write = |name: &str, content: &str| {
        fs::write(ca.path(name), content).unwrap();
        ca.path(name)
    };
    let reversed = format!("{}{}", ca.issuer.pem(), fs::read_to_string(&pem).unwrap());
    expect(&write("reversed.pem", &reversed), &key, "wrong order");
    expect(&write("empty.pem", ""), &key, "holds no certificate");
    expect(&pem, &write("empty.key", "\n"), "holds no private key");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    expect(&pem, &write("encrypted.key", encrypted), "openssl pkey");
    expect(&write("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB"), &key, "PEM");
    expect(
        &write("junk.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
        &key,
        "not a certificate that can be read",
    );
}

#[test]
fn a_failed_reload_leaves_the_old_certificate() {
    let ca = Authority::new();
    let source = ca.issue("relay", "relay.test", (2020, 2100));
    let server = ca.server(source);
    let before = server.facts();
    let key = fs::read(ca.path("relay.key")).unwrap();
    fs::write(ca.path("relay.key"), "").unwrap();
    assert!(server.reload().is_err());
    assert_eq!(server.facts(), before);
    let resumable = server.rustls_config();
    fs::write(ca.path("relay.key"), key).unwrap();
    server.reload().unwrap();
    assert!(Arc::ptr_eq(&resumable, &server.rustls_config()), "the same certificate lost its tickets");
}

#[test]
fn wildcards_cover_one_label() {
    let ca = Authority::new();
    ca.issue("wild", "*.relay.test", (2020, 2100));
    let pair = Pair::load(&ca.path("wild.pem"), &ca.path("wild.key")).unwrap();
    assert!(pair.facts().covers("MX.relay.test"));
    assert!(!pair.facts().covers("relay.test") && !pair.facts().covers("a.b.relay.test"));
}

#[test]
fn the_stored_acme_certificate_serves_while_it_is_good() {
    let ca = Authority::new();
    let source = CertificateSource::Acme { domains: vec!["relay.test".into()] };
    let stored = ca.path("data/tls/acme/certificate.pem");
    assert!(ca.server(source.clone()).facts().self_signed, "there is none yet");
    for (name, years, serves) in [
        ("relay.test", (2020, 2100), true),
        ("relay.test", (2020, 2021), false),
        ("mx.test", (2020, 2100), false),
    ] {
        ca.issue("acme", name, years);
        let both = [fs::read(ca.path("acme.pem")).unwrap(), fs::read(ca.path("acme.key")).unwrap()].concat();
        write_private(&stored, &both).unwrap();
        assert_eq!(ca.server(source.clone()).facts().self_signed, !serves, "{name} {years:?}");
    }
    fs::write(&stored, "damaged").unwrap();
    assert!(ca.server(source).facts().self_signed);
}

/// Accepts connections for ever, each time with the same session cache.
fn serve(server: ServerTls) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let server = server.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = server.accept(Stream::Tcp(tcp), LIMIT).await {
                    // Tickets come with the first octets.
                    stream.write_all(b"hello").await.unwrap();
                    stream.flush().await.unwrap();
                    let mut end = [0; 1];
                    let _ = stream.read(&mut end).await;
                }
            });
        }
    });
    (at, task)
}

async fn connect(
    client: &ClientTls,
    at: std::net::SocketAddr,
    trust: &Trust,
) -> Result<(Stream, bool), NetError> {
    let tcp = TcpStream::connect(at).await.unwrap();
    let mut stream = client.connect_as(Stream::Tcp(tcp), "relay.test", trust, None, LIMIT).await?;
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    let Stream::Client(tls) = &stream else { panic!("{stream:?}") };
    let resumed = tls.stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    Ok((stream, resumed))
}

#[tokio::test]
async fn sessions_are_resumed_and_verified_each_time() {
    let ca = Authority::new();
    let source = ca.issue("relay", "relay.test", (2020, 2100));
    let pair = Pair::load(&ca.path("relay.pem"), &ca.path("relay.key")).unwrap();
    let (at, _task) = serve(ca.server(source));
    let client = ca.client();
    let dane = |data: &[u8]| {
        let record = Tlsa { usage: 3, selector: 0, matching: 0, data: data.into() };
        Trust::Dane(Arc::new(Dane::new(&[record], vec!["relay.test".into()]).unwrap()))
    };
    let right = dane(pair.leaf());
    let other = ca.issue("other", "relay.test", (2020, 2100));
    let CertificateSource::Files { certificate, key } = other else { panic!() };
    let wrong = dane(Pair::load(&certificate, &key).unwrap().leaf());

    let (stream, resumed) = connect(&client, at, &right).await.unwrap();
    assert_eq!((stream.tls_info().unwrap().verified.as_str(), resumed), ("dane", false));
    let (stream, resumed) = connect(&client, at, &right).await.unwrap();
    assert!(resumed, "the second connection is a new session");
    assert_eq!(stream.tls_info().unwrap().verified, "dane");
    // A session that began under another policy proves nothing for this one.
    let refused = connect(&client, at, &wrong).await.unwrap_err();
    assert!(matches!(refused, NetError::Untrusted { fault: CertificateFault::Tlsa, .. }), "{refused}");
    let (stream, _) = connect(&client, at, &Trust::Opportunistic).await.unwrap();
    assert!(client.would_satisfy(&stream, "relay.test", &right).is_ok());
    assert!(client.would_satisfy(&stream, "relay.test", &Trust::Verified).is_ok());
    assert!(client.would_satisfy(&stream, "other.test", &Trust::Verified).is_err());
    assert!(client.would_satisfy(&stream, "relay.test", &wrong).is_err());

    let (_, first) = connect(&client, at, &Trust::Verified).await.unwrap();
    let (_, second) = connect(&client, at, &Trust::Verified).await.unwrap();
    assert_eq!((first, second), (false, true));
}

#[tokio::test]
async fn names_and_roots_of_the_operators_choice() {
    let ca = Authority::new();
    let (at, _task) = serve(ca.server(ca.issue("mail", "mail.partner.test", (2020, 2100))));
    // It trusts the system's roots alone.
    let client = ClientTls::new(&ClientTlsConfig::default(), Clock::system()).unwrap();
    let roots = Roots::load(&ca.path("ca.pem")).unwrap();
    let trust = |names: &[&str], roots: Option<&Roots>| {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        Trust::Named(Arc::new(Named { names, roots: roots.cloned() }))
    };
    let good = trust(&["other.test", "mail.partner.test"], Some(&roots));
    assert_eq!(connect(&client, at, &good).await.unwrap().0.tls_info().unwrap().verified, "verified");
    for (names, roots, fault) in [
        (&["other.test"][..], Some(&roots), CertificateFault::Name),
        (&[], Some(&roots), CertificateFault::Name),
        (&["mail.partner.test"], None, CertificateFault::Issuer),
    ] {
        match connect(&client, at, &trust(names, roots)).await {
            Err(NetError::Untrusted { fault: found, .. }) => assert_eq!(found, fault, "{names:?}"),
            other => panic!("{names:?} {other:?}"),
        }
    }
    assert!(Roots::load(&ca.path("mail.key")).is_err());
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks() {
    let ca = Authority::new();
    ca.issue("relay", "relay.test", (2020, 2100));
    ca.issue("client", "client.test", (2020, 2100));
    let identity = ClientIdentity::load(&ca.path("client.pem"), &ca.path("client.key")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.issuer.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .unwrap();
    let pair = Pair::load(&ca.path("relay.pem"), &ca.path("relay.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair.certified)));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    for (shown, welcome) in [(Some(&identity), true), (None, false)] {
        let (near, far) = pair_of_tcp().await;
        let client = ca.client();
        let trust = Trust::Verified;
        let connecting = client.connect_as(Stream::Tcp(far), "relay.test", &trust, shown, LIMIT);
        let (accepted, connected) = tokio::join!(acceptor.accept(near), connecting);
        assert_eq!(accepted.is_ok(), welcome, "{accepted:?}");
        if welcome {
            assert_eq!(connected.unwrap().identity(), Some(&identity));
        }
    }
}

async fn pair_of_tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}
