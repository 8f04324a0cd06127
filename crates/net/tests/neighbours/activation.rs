//! systemd hands over listening sockets, by name.

use std::io::{Read, Write};
use std::net::TcpStream;

use net::{Activation, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Neighbour, PATIENCE, as_child, child, free_address};

#[tokio::test]
async fn sockets_come_from_the_service_manager() {
    if as_child().is_some() {
        return serve_what_was_given().await;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let (smtp, submission) = (free_address(), free_address());
    let mut relay = Neighbour::start("systemd-socket-activate", "systemd", dir.path(), |c| {
        c.arg(format!("--listen={smtp}")).arg(format!("--listen={submission}"));
        c.arg("--fdname=smtp:submission");
        // It hands on no more of the environment than it is told to.
        let test = child("activation::sockets_come_from_the_service_manager", "1");
        for (name, value) in test.get_envs() {
            c.arg("-E").arg(format!("{}={}", name.display(), value.unwrap().display()));
        }
        c.arg(test.get_program()).args(test.get_args());
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

async fn serve_what_was_given() {
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
