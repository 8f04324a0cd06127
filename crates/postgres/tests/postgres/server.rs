//! The test server itself.

use postgres::test::Server;

#[test]
fn starts_makes_databases_and_leaves_nothing() {
    let server = Server::start(&[]);
    let (a, b) = (server.database(), server.database());
    assert_ne!(a.url, b.url);
    assert_eq!(server.sql("SHOW fsync"), "on");
    let (dir, pid) = (server.dir().to_owned(), server.pid());
    assert!(dir.exists() && pid != 0);
    server.down();
    server.up();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'test%'"), "2");
    let pid = server.pid();
    drop(server);
    assert!(!dir.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
