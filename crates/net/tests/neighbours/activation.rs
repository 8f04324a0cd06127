//! systemd hands over listening sockets, by name.

use std::io::{Read, Write};
use std::net::TcpStream;

use net::{Activation, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Neighbour, PATIENCE, free_address};

#[test]
fn sockets_come_from_the_service_manager() {
    let dir = tempfile::TempDir::new().unwrap();
    let (smtp, submission) = (free_address(), free_address());
    let mut relay = Neighbour::start("systemd-socket-activate", "systemd", dir.path(), |c| {
        c.arg(format!("--listen={smtp}")).arg(format!("--listen={submission}"));
        c.arg("--fdname=smtp:submission");
        c.arg(std::env::current_exe().unwrap());
        c.args(["--exact", "activation::child_serves_what_it_was_given", "--ignored", "--nocapture"]);
    });
    // The first connection makes systemd start the relay and waits in the queue until it is there.
    for (at, greeting) in [(submission, "submission"), (smtp, "smtp")] {
        let mut client = loop {
            match TcpStream::connect(at) {
                Ok(client) => break client,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        };
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b".").unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap_or_else(|e| panic!("{e}: {}", relay.said()));
        assert_eq!(said, greeting, "{}", relay.said());
    }
    assert!(relay.wait().success(), "{}", relay.said());
}

/// The other half of the test above; run in the process that systemd starts.
#[tokio::test]
#[ignore = "started by the test above"]
async fn child_serves_what_it_was_given() {
    let mut given = Activation::from_env().unwrap();
    assert!(given.take("nonsense").is_empty());
    for name in ["submission", "smtp"] {
        let sockets = given.take(name);
        assert_eq!(sockets.len(), 1, "{name}");
        let listener = Listener::from_sockets(sockets).unwrap();
        let (mut stream, _) = listener.accept().await;
        stream.read_exact(&mut [0]).await.unwrap();
        stream.write_all(name.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    assert_eq!(given.left().count(), 0);
}
