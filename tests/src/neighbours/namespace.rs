//! Namespaces: a private `/etc` and spool for programs whose paths are compiled in, and a private network in which port 25
//! and public-looking addresses are ours.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use crate::process::run;

/// A command that runs `script` with a copy of `/etc` that has these users too, and with empty `/var/spool`, `/var/lib`
/// and `/run`. The script is the last thing the shell does: it should `exec`. `dir` becomes readable for all.
pub fn with_own_etc(dir: &Path, users: &[(&str, u32)], script: &str) -> Command {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let etc = dir.join("etc");
    let mut lines = String::from("set -e\nmount --make-rprivate /\n");
    lines.push_str(&format!("cp -a /etc '{}'\n", etc.display()));
    for (name, id) in users {
        lines.push_str(&format!(
            "echo '{name}:x:{id}:{id}::/var/lib/opensmtpd/empty:/usr/sbin/nologin' >> '{0}/passwd'\n\
             echo '{name}:x:{id}:' >> '{0}/group'\n",
            etc.display()
        ));
    }
    lines.push_str(&format!("mount --bind '{}' /etc\n", etc.display()));
    for place in ["/var/spool", "/var/lib", "/run"] {
        lines.push_str(&format!("mount -t tmpfs -o mode=0755 posthouse-test {place}\n"));
    }
    lines.push_str(script);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &lines]);
    command
}

/// Gives this thread, and all threads and processes that it starts from now on, a network of its own: only loopback, with
/// `addresses` on it beside 127.0.0.1. It is gone when the last of them is.
pub fn own_network(addresses: &[IpAddr]) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
    ip(&["link", "set", "lo", "up"]);
    for address in addresses {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        ip(&["address", "add", &format!("{address}/{bits}"), "dev", "lo"]);
    }
}

fn ip(args: &[&str]) {
    let mut command = Command::new("ip");
    command.args(args);
    run("ip", command, Duration::from_secs(10));
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn port_25_is_ours_in_a_network_of_our_own() {
        crate::needs!("root", "ip");
        let address: IpAddr = "203.0.113.25".parse().unwrap();
        std::thread::spawn(move || {
            own_network(&[address]);
            let listener = TcpListener::bind((address, 25)).unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        })
        .join()
        .unwrap();
        assert!(TcpListener::bind((address, 25)).is_err());
    }
}
