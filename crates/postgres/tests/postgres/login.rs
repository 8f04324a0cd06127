//! Who we are, who they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use postgres::test::Server;
use postgres::{Config, Durability, PgError, Pool};

/// A server with TLS, whose certificate is for `db.example` at 127.0.0.1, and that wants a password over TCP.
fn with_tls() -> (Server, String) {
    let server = Server::start(&[]);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (cert_file, key_file) = (server.dir().join("server.pem"), server.dir().join("server.key"));
    fs::write(&cert_file, certificate.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let owner = fs::metadata(server.dir()).unwrap();
    let (uid, gid) =
        (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
    std::os::unix::fs::chown(&key_file, Some(uid), Some(gid)).unwrap();
    server.sql("CREATE ROLE ph LOGIN PASSWORD 'geheim'");
    let hba = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(server.dir().join("data/pg_hba.conf"), hba).unwrap();
    server.set("ssl_cert_file", cert_file.to_str().unwrap());
    server.set("ssl_key_file", key_file.to_str().unwrap());
    server.set("ssl", "on");
    (server, cert_file.to_str().unwrap().replace('/', "%2F"))
}

async fn open(url: String) -> Result<Pool, PgError> {
    let mut config = Config::new(url);
    config.durability = Durability::Provider;
    Pool::connect(config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_what_the_server_must_prove() {
    let (server, root) = with_tls();
    let url =
        |host: &str, rest: &str| format!("postgres://ph:geheim@{host}:{}/postgres{rest}", server.port());
    // On loopback: TLS if it is there, and here it must be. SCRAM binds to the certificate.
    for rest in ["", "?sslmode=require", "?channel_binding=require"] {
        let pool = open(url("127.0.0.1", rest)).await.unwrap_or_else(|e| panic!("{rest}: {e}"));
        let row = pool
            .read(|s| async move {
                s.query_one("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await
            })
            .await
            .unwrap();
        assert!(row.get::<_, bool>(0));
        assert_eq!(row.get::<_, String>(1), "TLSv1.3");
    }
    // Nothing here needs more than a database of one's own.
    server.sql("CREATE DATABASE mail OWNER ph");
    let pool = open(format!("postgres://ph:geheim@127.0.0.1:{}/mail", server.port())).await.unwrap();
    assert_eq!(postgres::migrate(&pool, "t", &["CREATE SCHEMA s; CREATE TABLE s.t (n int)"]).await, Ok(0));
    let insert = |tx: postgres::Tx| async move { tx.execute("INSERT INTO s.t VALUES (1)", &[]).await };
    assert_eq!(pool.commit(insert).await, Ok(1));
    assert_eq!(pool.check().await, Ok(()));
    assert!(open(url("127.0.0.1", "?sslmode=disable")).await.is_err());
    // Its own certificate is the root; the name in it is localhost.
    let named = format!("?sslmode=verify-full&sslrootcert={root}");
    let issued = format!("?sslmode=verify-ca&sslrootcert={root}");
    assert!(open(url("localhost", &named)).await.is_ok());
    assert!(open(url("127.0.0.1", &issued)).await.is_ok());
    let error = open(url("127.0.0.1", &named)).await.err().unwrap().to_string();
    assert!(error.contains("certificate"), "{error}");
    for mode in ["verify-full", "verify-ca"] {
        // Roots of the system alone, or none.
        let error = open(url("localhost", &format!("?sslmode={mode}"))).await.err().unwrap().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_says_who_is_at_fault() {
    let (server, _) = with_tls();
    let url =
        |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{}/{database}", server.port());
    let error = open(url("ph:falsch", "postgres")).await.err().unwrap();
    assert!(matches!(&error, PgError::Login(why) if why.contains("password")), "{error:?}");
    assert!(!error.to_string().contains("falsch"));
    let error = open(url("ph:geheim", "nowhere")).await.err().unwrap();
    assert!(matches!(&error, PgError::Login(why) if why.contains("nowhere")), "{error:?}");
}
