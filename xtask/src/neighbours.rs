//! The real programs that the tests are run against: named, then installed. Packages come from apt; Exim, OpenSMTPD, Pebble
//! and etcd are only unpacked into the cache, because Debian lets one mail server be installed at a time and starts what it
//! installs at the next boot; what pip and npm bring goes into the cache as well. Nothing that is installed is started.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::shell::{Done, cache, capture, command, have, run};

/// A program that shows that the package is there, and the package.
const PACKAGES: [(&str, &str); 25] = [
    ("postfix", "postfix"),
    ("postsrsd", "postsrsd"),
    ("postgrey", "postgrey"),
    ("swaks", "swaks"),
    ("/usr/share/doc/libnet-ssleay-perl", "libnet-ssleay-perl"),
    ("msmtp", "msmtp"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("knotd", "knot"),
    ("kdig", "knot-dnsutils"),
    ("unbound", "unbound"),
    ("haproxy", "haproxy"),
    ("microsocks", "microsocks"),
    ("systemd-socket-activate", "systemd"),
    ("dovecot", "dovecot-core"),
    ("/usr/lib/dovecot/lmtp", "dovecot-lmtpd"),
    ("strace", "strace"),
    ("faketime", "faketime"),
    ("mkfs.ext4", "e2fsprogs"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("/usr/share/doc/postgresql", "postgresql"),
    ("openssl", "openssl"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// Packages that are unpacked, not installed, and a file of each.
const UNPACKED: [(&str, &str); 4] = [
    ("exim4-daemon-light", "usr/sbin/exim4"),
    ("opensmtpd", "usr/sbin/smtpd"),
    ("pebble", "usr/bin/pebble"),
    ("etcd-server", "usr/bin/etcd"),
];

/// What pip installs into one environment, and a program of each.
const PYTHON: [(&str, &str); 3] =
    [("aiosmtpd", "aiosmtpd"), ("patroni[etcd3]==4.1.5", "patroni"), ("psycopg2-binary", "patroni")];

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing; on a terminal only after a yes.
pub(crate) fn install() -> Done {
    let packages: Vec<&str> =
        PACKAGES.iter().filter(|(probe, _)| !here(probe)).map(|(_, package)| *package).collect();
    let unpacked: Vec<&str> = UNPACKED
        .iter()
        .filter(|(_, file)| !cache().join("root").join(file).exists())
        .map(|(package, _)| *package)
        .collect();
    let python: Vec<&str> = PYTHON
        .iter()
        .filter(|(_, program)| !cache().join("venv/bin").join(program).exists())
        .map(|(package, _)| *package)
        .collect();
    let node = !cache().join("node/node_modules/nodemailer").is_dir();
    if packages.is_empty() && unpacked.is_empty() && python.is_empty() && !node {
        return Ok(());
    }
    println!("The tests run against real mail programs. Missing on this machine:");
    let say = |what: &str, names: &[&str]| {
        if !names.is_empty() {
            println!("  {what}: {}", names.join(" "));
        }
    };
    say("apt, installed but not started", &packages);
    say(&format!("apt, only unpacked into {}", cache().display()), &unpacked);
    say("pip, into the same place", &python);
    say("npm, into the same place", if node { &["nodemailer"] } else { &[] });
    if !agreed() {
        return Err("not installed; the tests need them".to_owned());
    }
    apt_install(&packages)?;
    unpack(&unpacked)?;
    if !python.is_empty() {
        let venv = cache().join("venv");
        let make = || command("python3", &["-m", "venv", &venv.to_string_lossy()]);
        if !venv.join("bin/pip").exists() && run(make()).is_err() {
            apt_install(&["python3-venv"])?;
            run(make())?;
        }
        let pip = venv.join("bin/pip");
        run(command(&pip.to_string_lossy(), &[&["install", "--quiet"], &python[..]].concat()))?;
    }
    if node {
        let dir = cache().join("node");
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        run(command(
            "npm",
            &[
                "install",
                "--silent",
                "--no-fund",
                "--no-audit",
                "--prefix",
                &dir.to_string_lossy(),
                "nodemailer",
            ],
        ))?;
    }
    Ok(())
}

fn here(probe: &str) -> bool {
    if probe.starts_with('/') { Path::new(probe).exists() } else { have(probe) }
}

fn agreed() -> bool {
    if std::env::var_os("CI").is_some() || !std::io::stdin().is_terminal() {
        return true;
    }
    print!("Install them now? [Y/n] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes")
}

/// The command as root: through sudo unless we are root already.
fn as_root(program: &str, args: &[&str]) -> Command {
    let root = capture(command("id", &["-u"])).is_ok_and(|id| id.trim() == "0");
    let mut command =
        if root { command(program, args) } else { command("sudo", &[&[program], args].concat()) };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Installs packages without letting any of them start a service now. Postfix gets no configuration and PostgreSQL no
/// cluster, so they do not start at the next boot either.
fn apt_install(packages: &[&str]) -> Done {
    if packages.is_empty() {
        return Ok(());
    }
    if packages.contains(&"postfix") {
        let answer =
            "echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections";
        let _ = as_root("sh", &["-c", answer]).status();
    }
    if packages.contains(&"postgresql") {
        let dir = "/etc/postgresql-common";
        let line = "create_main_cluster = false";
        let script = format!("mkdir -p {dir} && echo '{line}' > {dir}/createcluster.conf");
        run(as_root("sh", &["-c", &format!("[ -e {dir}/createcluster.conf ] || {{ {script}; }}")]))?;
    }
    let ours = !Path::new(POLICY).exists();
    if ours {
        run(as_root(
            "sh",
            &["-c", &format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}")],
        ))?;
    }
    let flags = ["install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"];
    let done = run(as_root("apt-get", &[&flags, packages].concat()));
    if ours {
        run(as_root("rm", &["-f", POLICY]))?;
    }
    done
}

/// Downloads packages and unpacks them; only the libraries that they depend on are installed.
fn unpack(packages: &[&str]) -> Done {
    if packages.is_empty() {
        return Ok(());
    }
    let (debs, root) = (cache().join("debs"), cache().join("root"));
    for dir in [&debs, &root] {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
    }
    let mut wanted = Vec::new();
    for package in packages {
        let depends = capture(command("apt-cache", &["depends", "--no-recommends", package]))?;
        let libraries = depends.lines().filter_map(|l| l.trim().strip_prefix("Depends: "));
        wanted.extend(libraries.filter(|l| l.starts_with("lib") && !l.contains('<')).map(str::to_owned));
    }
    wanted.sort();
    wanted.dedup();
    apt_install(&wanted.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut download = command("apt-get", &["-o", "APT::Sandbox::User=root", "download", "-qq"]);
    run({
        download.args(packages).current_dir(&debs);
        download
    })?;
    for entry in fs::read_dir(&debs).map_err(|e| e.to_string())?.flatten() {
        run(command("dpkg", &["-x", &entry.path().to_string_lossy(), &root.to_string_lossy()]))?;
    }
    Ok(())
}
