//! No file descriptors left: the listener waits without spinning, and goes on when there are some again.

use std::net::SocketAddr;
use std::time::Duration;

use net::Listener;
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, as_child, child};

#[tokio::test]
async fn running_out_of_descriptors_is_waited_out() {
    if as_child().is_some() {
        return run_out().await;
    }
    // In a process of its own: the limit would hit the other tests.
    let output = child("exhaustion::running_out_of_descriptors_is_waited_out", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

async fn run_out() {
    let listener = Listener::bind(&["127.0.0.1:0".parse::<SocketAddr>().unwrap()]).unwrap();
    let at = listener.addresses().next().unwrap();
    let client = TcpStream::connect(at).await.unwrap();
    // Everything but what is open already is taken away.
    let mut hoard = Vec::new();
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    let before = cpu();
    let waited = timeout(Duration::from_secs(1), listener.accept()).await;
    assert!(waited.is_err(), "a connection without a descriptor");
    let spent = cpu() - before;
    assert!(spent < Duration::from_millis(100), "it spins: {spent:?} of CPU in a second of waiting");

    hoard.clear();
    let (_, peer) = timeout(PATIENCE, listener.accept()).await.expect("it never goes on");
    assert_eq!(peer.address, client.local_addr().unwrap());
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |t: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap())
    };
    time(usage.user_time()) + time(usage.system_time())
}
