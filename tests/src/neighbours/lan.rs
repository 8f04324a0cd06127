//! A small network of machines, made of Linux namespaces: each machine has processes, an address and a cable of its own. A
//! machine can lose its power, and any set of machines can be cut off from the rest and joined again.
//!
//! The kernel keeps it all together: a machine's first process dies with the test, whatever way the test ends, and with it go
//! the machine's other processes, its interfaces and, with the test's own thread, the bridges. Nothing has a name in the
//! system that could be left behind.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespace::own_network;
use crate::process::{Daemon, descendants, run};

/// The first process of a machine; it adopts and reaps what daemons leave, as an init does.
const INIT: &str = "ip link set lo up; echo up; while :; do sleep 3600 & wait; done";
/// The addresses of all machines.
pub const LAN: &str = "10.77.0.0/24";
/// The bridge that the test itself is on.
const HERE: &str = "here";
/// The bridge of those that are cut off; they still see one another.
const AWAY: &str = "away";

/// The network. The thread that made it is on it, and so are the threads and processes that this thread starts afterwards.
pub struct Lan {
    machines: u8,
}

impl Lan {
    /// Takes this thread out of the machine's network into one of its own, with 10.77.0.1 for itself.
    #[allow(clippy::new_without_default, reason = "it changes the thread it is called on")]
    pub fn new() -> Self {
        own_network(&[]);
        for bridge in [HERE, AWAY] {
            ip(&["link", "add", bridge, "type", "bridge"]);
            ip(&["link", "set", bridge, "up"]);
        }
        ip(&["address", "add", "10.77.0.1/24", "dev", HERE]);
        Self { machines: 0 }
    }

    /// A machine with the next free address, switched on.
    pub fn machine(&mut self, name: &str) -> Machine {
        self.machines += 1;
        let address = Ipv4Addr::new(10, 77, 0, 10 + self.machines);
        let mut machine = Machine { name: name.to_owned(), address, away: false, on: None };
        machine.power_on();
        machine
    }
}

/// A machine of the network. Dropping it switches it off.
pub struct Machine {
    name: String,
    address: Ipv4Addr,
    away: bool,
    on: Option<On>,
}

struct On {
    holder: Daemon,
    init: i32,
}

impl Machine {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Switches it on, with its name and address, on the side of the network where it was.
    pub fn power_on(&mut self) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--pid", "--mount-proc", "--fork"]);
        command.args(["--kill-child", "bash", "-c", INIT]);
        let mut holder = Daemon::start(&self.name, command);
        holder.farewell = Signal::SIGKILL;
        holder.wait_line("it is up", Duration::from_secs(20), 0, |l| (l == "up").then_some(()));
        let init = descendants(holder.pid())[1];
        self.on = Some(On { holder, init });
        let (cable, init) = (self.cable(), init.to_string());
        // The cable of a machine that lost its power goes a moment after the machine.
        let _ =
            Command::new("ip").args(["link", "delete", &cable]).stderr(std::process::Stdio::null()).status();
        // Its own hardware address, the same at each start, as neighbours remember it.
        let hardware = format!("02:00:00:4d:00:{:02x}", self.address.octets()[3]);
        let end = ["peer", "name", "eth0", "address", &hardware, "netns", &init];
        ip(&[&["link", "add", &cable, "type", "veth"], &end[..]].concat());
        ip(&["link", "set", &cable, "master", if self.away { AWAY } else { HERE }, "up"]);
        let address = format!("{}/24", self.address);
        for line in [
            &["address", "add", &address, "dev", "eth0"][..],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "via", "10.77.0.1"],
        ] {
            let mut command = self.command("ip");
            command.args(line);
            run("ip", command, Duration::from_secs(10));
        }
    }

    /// Pulls the plug: every process of it is gone at once. What is on its disks stays; nobody hears of it.
    pub fn power_off(&mut self) {
        if let Some(mut on) = self.on.take() {
            // First of all, for a kernel goes on sending what a dead process has left in its sockets.
            ip(&["link", "delete", &self.cable()]);
            on.holder.kill9();
        }
    }

    /// A command that runs on it.
    pub fn command(&self, program: &str) -> Command {
        let prefix = self.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }

    /// The words before a command that make it run on this machine, until it loses its power.
    pub fn prefix(&self) -> Vec<String> {
        let target = format!("--target={}", self.init());
        ["nsenter", &target, "--net", "--pid", "--mount", "--"].map(str::to_owned).to_vec()
    }

    /// Loses every packet that this machine would send to another one, or stops doing so; all others still hear from it.
    pub fn deaf_to(&self, other: IpAddr, deaf: bool) {
        let mut command = self.command("ip");
        command.args(["route", if deaf { "add" } else { "delete" }, "blackhole", &format!("{other}/32")]);
        run("ip", command, Duration::from_secs(10));
    }

    /// Cuts it off: what it sends and what is sent to it is lost without a word, but for others that are cut off as well.
    pub fn cut_off(&mut self) {
        self.away = true;
        ip(&["link", "set", &self.cable(), "master", AWAY]);
    }

    /// Joins it to the test's side of the network again.
    pub fn join(&mut self) {
        self.away = false;
        ip(&["link", "set", &self.cable(), "master", HERE]);
    }

    /// The processes on it whose command line is `wanted`: their ids as the test sees them.
    pub fn processes(&self, wanted: impl Fn(&str) -> bool) -> Vec<i32> {
        let Some(On { init, .. }) = self.on else { return Vec::new() };
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(init);
        let line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| *pid != init && ours.is_some() && namespace(*pid) == ours)
            .filter(|pid| wanted(String::from_utf8_lossy(&line(*pid)).replace('\0', " ").trim()))
            .collect()
    }

    /// Sends a signal to all processes whose command line is `wanted`, until there is none that has not got it. Returns how many.
    pub fn signal(&self, signal: Signal, wanted: impl Fn(&str) -> bool) -> usize {
        let mut done = Vec::new();
        loop {
            let more: Vec<i32> = self.processes(&wanted).into_iter().filter(|p| !done.contains(p)).collect();
            if more.is_empty() {
                return done.len();
            }
            for pid in &more {
                let _ = kill(Pid::from_raw(*pid), signal);
            }
            done.extend(more);
        }
    }

    fn init(&self) -> i32 {
        self.on.as_ref().unwrap_or_else(|| panic!("{} has no power", self.name)).init
    }

    fn cable(&self) -> String {
        format!("to-{}", self.name)
    }
}

fn ip(args: &[&str]) {
    let mut command = Command::new("ip");
    command.args(args);
    run("ip", command, Duration::from_secs(10));
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};

    use super::*;
    use crate::wait::eventually;

    const SERVER: &str = "import socket,time\ns=socket.create_server(('0.0.0.0',7))\nprint('up',flush=True)\n\
                          while 1: s.accept()[0].close()";

    fn serve(machine: &Machine) -> Daemon {
        let mut command = machine.command("python3");
        command.args(["-c", SERVER]);
        let mut server = Daemon::start("server", command);
        server.wait_line("it listens", Duration::from_secs(20), 0, |l| (l == "up").then_some(()));
        server
    }

    fn reaches(machine: &Machine) -> bool {
        let addr = SocketAddr::from((machine.address(), 7));
        TcpStream::connect_timeout(&addr, Duration::from_millis(500)).is_ok()
    }

    /// Whether one machine reaches another.
    fn sees(from: &Machine, to: &Machine) -> bool {
        let mut command = from.command("python3");
        let probe = format!("import socket\nsocket.create_connection(('{}',7),1)", to.address());
        command.args(["-c", &probe]);
        crate::process::try_run("probe", command, Duration::from_secs(20)).0.success()
    }

    #[test]
    fn machines_are_cut_off_joined_and_switched_off() {
        crate::needs!("root", "ip", "unshare", "nsenter", "setpriv", "python3");
        std::thread::spawn(|| {
            let mut lan = Lan::new();
            let (mut a, mut b, c) = (lan.machine("a"), lan.machine("b"), lan.machine("c"));
            let servers = [serve(&a), serve(&b), serve(&c)];
            assert!(reaches(&a) && reaches(&b) && sees(&c, &a));
            a.cut_off();
            b.cut_off();
            assert!(!reaches(&a) && !sees(&c, &a), "the other side is out of reach");
            assert!(sees(&a, &b) && reaches(&c), "those of one side see one another");
            a.join();
            b.join();
            eventually("it is joined again", Duration::from_secs(20), || reaches(&a).then_some(()));
            assert_eq!(a.processes(|line| line.contains("create_server")).len(), 1);
            let strays = a.processes(|_| true);
            assert!(!strays.is_empty());
            a.power_off();
            for pid in strays {
                assert!(!std::path::Path::new(&format!("/proc/{pid}/ns/pid")).exists(), "{pid} lives on");
            }
            assert!(!reaches(&a) && reaches(&b));
            a.power_on();
            let _again = serve(&a);
            eventually("it is back", Duration::from_secs(20), || reaches(&a).then_some(()));
            drop(servers);
        })
        .join()
        .unwrap();
    }

    /// Set in the process that is to be killed.
    const VICTIM: &str = "POSTHOUSE_LAN_VICTIM";

    #[test]
    fn a_test_that_is_killed_leaves_nothing_running() {
        crate::needs!("root", "ip", "unshare", "nsenter", "setpriv");
        if std::env::var_os(VICTIM).is_some() {
            return wait_to_be_killed();
        }
        let name = "neighbours::lan::tests::a_test_that_is_killed_leaves_nothing_running";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([name, "--exact", "--nocapture"]).env(VICTIM, "1");
        let mut victim = Daemon::start("victim", command);
        let pid = |line: &str| line.split_once("runs as ")?.1.parse::<i32>().ok();
        let pid = victim.wait_line("a process on a machine", Duration::from_secs(20), 0, pid);
        let orphan = format!("/proc/{pid}/ns/pid");
        assert!(fs::read_link(&orphan).is_ok());
        victim.signal(Signal::SIGKILL);
        victim.wait_exit(Duration::from_secs(20));
        eventually("it is gone with the test", Duration::from_secs(20), || fs::read_link(&orphan).err());
    }

    /// With a daemon on a machine that has left its parents, as servers do.
    fn wait_to_be_killed() {
        let mut lan = Lan::new();
        let machine = lan.machine("a");
        let mut command = machine.command("sh");
        command.args(["-c", "setsid sleep 7200 & exit 0"]);
        // Its output stays open: it is not waited for.
        let _parent = Daemon::start("parent", command);
        let running = || machine.processes(|line| line.starts_with("sleep 7200")).first().copied();
        println!("runs as {}", eventually("it runs", Duration::from_secs(20), running));
        loop {
            std::thread::park();
        }
    }
}
