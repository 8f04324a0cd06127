//! Starting neighbours, and certificates for them.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A program that is stopped when it is no longer needed.
pub(crate) struct Neighbour {
    child: Child,
    log: PathBuf,
}

impl Neighbour {
    /// Starts `program` of the Debian package `package`; what it says goes into a file in `dir`.
    pub(crate) fn start(
        program: &str,
        package: &str,
        dir: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let log = dir.join(format!("{program}.log"));
        let output = fs::File::create(&log).unwrap();
        let found = find(program)
            .unwrap_or_else(|| panic!("{program} is missing; install it: apt-get install {package}"));
        let mut command = Command::new(found);
        command.current_dir(dir).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        prepare(&mut command);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
        Self { child, log }
    }

    /// Waits until it takes TCP connections at `at`.
    pub(crate) async fn listening(mut self, at: SocketAddr) -> Self {
        let reached = tokio::time::timeout(PATIENCE, async {
            while tokio::net::TcpStream::connect(at).await.is_err() {
                if let Some(status) = self.child.try_wait().unwrap() {
                    panic!("it ended with {status}:\n{}", self.said());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if reached.await.is_err() {
            panic!("it does not listen on {at}:\n{}", self.said());
        }
        self
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        let mut text = String::new();
        fs::File::open(&self.log).and_then(|mut f| f.read_to_string(&mut text)).unwrap();
        text
    }

    /// Waits for it to end.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Set in a process that plays the other half of a test, with what it needs to know.
const CHILD: &str = "POSTHOUSE_TEST_CHILD";

/// What the other half was given; none in the test itself.
pub(crate) fn as_child() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// The test of this name, run in a process of its own as the other half.
pub(crate) fn child(test: &str, given: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, given);
    command
}

/// Looks in PATH, in sbin, and where `cargo xtask test` unpacks what it does not install.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = std::env::var_os("POSTHOUSE_NEIGHBOURS").map(PathBuf::from).or_else(|| {
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/posthouse/neighbours"))
    });
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(unpacked.into_iter().flat_map(|dir| [dir.join("root/usr/bin"), dir.join("root/usr/sbin")]))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// A loopback address whose port is free for UDP and TCP alike.
pub(crate) fn free_address() -> SocketAddr {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        if UdpSocket::bind(at).is_ok() {
            return at;
        }
    }
    panic!("no port is free for both UDP and TCP")
}

/// A private certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "Private authority");
        Self { issuer: CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes a certificate for `names` and its key.
    pub(crate) fn issue(&self, names: &[&str], certificate: &Path, key_file: &Path) {
        self.issue_until(names, 4000, certificate, key_file);
    }

    /// The same, valid until the first day of a year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32, certificate: &Path, key_file: &Path) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        fs::write(certificate, parameters.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(key_file, key.serialize_pem()).unwrap();
    }
}
