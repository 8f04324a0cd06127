//! `posthouse check`: what is right passes, what is wrong is told with what to do, and nothing is changed.

use serde_json::Value;

use crate::common::*;

fn findings(done: &Done, level: &str) -> Vec<String> {
    let all: Vec<Value> = done.json().as_array().unwrap().clone();
    let words = |f: &Value| format!("{}: {}", f["about"].as_str().unwrap(), f["text"].as_str().unwrap());
    all.iter().filter(|f| f["level"] == level).map(words).collect()
}

#[test]
fn a_good_configuration_passes_and_nothing_is_left_behind() {
    let place = Place::new();
    let done = place.run(&["check", "--json"]).ok();
    assert_eq!(findings(&done, "fail"), Vec::<String>::new());
    assert!(!place.path("posthouse-data").exists());
    let running = place.serve();
    let done = place.run(&["check", "--json"]).ok();
    assert!(findings(&done, "ok").contains(&"relay: it is running".to_owned()), "{}", done.out);
    running.stop();
    // A data directory of a relay that stopped is as it was.
    place.run(&["check"]).ok();
    assert!(place.run(&["verify"]).ok().out.contains("all is well"));
}

#[test]
fn what_is_wrong_on_this_machine_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::bare(&format!(
        "api = {{ listen = [] }}\n\
         listener = [{{ address = [\"{}\", \"192.0.2.1:2525\"] }}]\n\
         route = [{{ domains = [\"other.example\"], to = \"sandbox\" }}]\n\
         relay = {{ local_domains = [\"example.net\"], networks = [\"0.0.0.0/0\", {{ network = \"10.0.0.0/8\", org = \"shop\" }}], recipients = \"file:none.txt\" }}\n\
         tls = {{ certificate = \"cert.pem\", key = \"key.pem\" }}\n\
         limits = {{ disk_reserve = \"900TB\", connections = 100000000 }}\n",
        taken.local_addr().unwrap()
    ));
    let done = place.run(&["check", "--offline", "--json"]).failed(1);
    let fails = findings(&done, "fail").join("\n");
    for words in [
        "another program has this port",
        "does not have the address",
        "example.net is a local domain, and no route",
        "this is an open relay",
        "there is no organisation \"shop\"",
        "none.txt",
        "cert.pem",
        "all mail would be refused",
    ] {
        assert!(fails.contains(words), "{words}:\n{fails}");
    }
    assert!(findings(&done, "warn").iter().any(|w| w.contains("open files")), "{}", done.out);
    let text = place.run(&["check", "--offline"]).failed(1).out;
    assert!(text.contains("FAIL") && text.contains("-> "), "{text}");
}

/// Both `check` and the start say so, and the relay starts all the same.
#[test]
fn too_few_open_files_are_told() {
    let place = Place::new();
    let bin = env!("CARGO_BIN_EXE_posthouse");
    let with = |files: u32, command: &str| {
        place.run_as("sh".as_ref(), &["-c", &format!("ulimit -n {files} && exec {bin} {command}")], "")
    };
    let few = with(1024, "check --offline --json").ok();
    let warned = findings(&few, "warn").join("\n");
    let words =
        "the system allows 1024 open files, and limits.connections (1000), delivery.connections (2000)";
    assert!(warned.contains(words), "{warned}");
    let enough = with(4096, "check --offline --json").ok();
    assert!(
        findings(&enough, "ok").iter().any(|t| t.contains("4096 open files are allowed")),
        "{}",
        enough.out
    );
    // It ends at once, as there is no such directory; what was to be said is said before.
    place.write("posthouse.toml", "data_dir = \"/dev/null/none\"\n");
    let started = with(1024, "serve");
    assert!(started.code != 0 && started.err.contains("raise LimitNOFILE"), "{started:#?}");
    assert!(!with(4096, "serve").err.contains("LimitNOFILE"));
}

#[test]
fn what_outgoing_mail_needs_is_looked_at() {
    let place = Place::with(
        "route = [{ to = \"sandbox\" }]\n[source.here]\nipv4 = \"127.0.0.1\"\n[source.gone]\nipv4 = \"192.0.2.77\"\n\
         [source.proxied]\nipv4 = \"192.0.2.78\"\nproxy = \"socks5://127.0.0.1:1080\"\n[source.soon]\n\
         warmup = { start = \"2199-01-01\", plan = [5] }\n[[egress]]\norgs = [\"acme\"]\npool = \"default\"\n\
         [[ceiling]]\ncredential = \"printer\"\nrate = \"1/1s\"\n[[tls_policy]]\ndomains = [\"a.example\"]\n\
         ca_file = \"none.pem\"\n[delivery]\nproviders = \"providers.toml\"\nbounces = \"none.toml\"\n",
    );
    place.write("providers.toml", "[provider.gmail]\nconnections = \"many\"\n");
    let done = place.run(&["check", "--offline", "--json"]).failed(1);
    let (fails, warns) = (findings(&done, "fail").join("\n"), findings(&done, "warn").join("\n"));
    for words in
        ["gone: 192.0.2.77 cannot be used here", "none.pem", "delivery.providers: ", "delivery.bounces: "]
    {
        assert!(fails.contains(words), "{words}:\n{fails}");
    }
    assert!(!fails.contains("192.0.2.78"), "that is the proxy's business:\n{fails}");
    for words in [
        "there is no organisation \"acme\"",
        "there is no credential \"printer\"",
        "nothing before 2199-01-01",
    ] {
        assert!(warns.contains(words), "{words}:\n{warns}");
    }
    assert!(
        findings(&done, "ok").iter().any(|f| f.contains("here: 127.0.0.1 is an address")),
        "{}",
        done.out
    );
}

/// Certificates by the name of `openssl`, as an operator has them.
fn certificate(place: &Place, name: &str, host: &str, days: &str) {
    let (key, cert) = (format!("{name}.key"), format!("{name}.crt"));
    let done = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", &format!("/CN={host}"), "-addext", &format!("subjectAltName=DNS:{host}")])
        .args(["-days", days, "-keyout", &key, "-out", &cert])
        .current_dir(place.dir.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn certificates_are_looked_into() {
    let check = |certificate: &str, key: &str, place: &Place| {
        let text = format!(
            "hostname = \"relay.example.net\"\napi = {{ listen = [] }}\nlistener = [{{ address = [\"127.0.0.1:0\"] }}]\n\
             tls = {{ certificate = \"{certificate}.crt\", key = \"{key}.key\" }}\n"
        );
        place.write("posthouse.toml", &text);
        place.run(&["check", "--offline", "--json"])
    };
    let place = Place::bare("");
    certificate(&place, "good", "relay.example.net", "100");
    certificate(&place, "other", "mail.example.com", "5");
    let good = check("good", "good", &place).ok();
    assert!(findings(&good, "ok").iter().any(|t| t.contains("belong together")), "{}", good.out);
    let mixed = check("good", "other", &place).failed(1);
    assert!(findings(&mixed, "fail").iter().any(|t| t.starts_with("tls")), "{}", mixed.out);
    let other = check("other", "other", &place).ok();
    let warnings = findings(&other, "warn").join("\n");
    assert!(warnings.contains("it ends on") && warnings.contains("not for relay.example.net"), "{warnings}");
}

#[test]
fn smart_hosts_are_logged_in_to_for_real() {
    let upstream = Place::new();
    let password = upstream.run(&["credential", "add", "branch"]).ok().last_line().to_owned();
    let _running = upstream.serve();
    let at = upstream.listens("submission");
    let config = |password: &str| {
        format!(
            "api = {{ listen = [] }}\nlistener = [{{ address = [\"127.0.0.1:0\"] }}]\nroute = [{{ to = \"smarthost:up\" }}]\n\
             [smarthost.up]\nhosts = [\"{at}\"]\ntls = \"none\"\nusername = \"branch\"\npassword = \"{password}\"\n"
        )
    };
    let place = Place::bare(&config(&password));
    let good = place.run(&["check", "--json"]).ok();
    assert!(
        findings(&good, "ok").iter().any(|t| t.contains("login as") && t.contains("accepted")),
        "{}",
        good.out
    );
    assert!(!good.out.contains(&password));
    assert!(findings(&good, "warn").iter().any(|t| t.contains("every user of this machine")), "{}", good.out);
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(place.path("posthouse.toml"), private).unwrap();
    let private = place.run(&["check", "--json"]).ok();
    assert!(!private.out.contains("every user of this machine"), "{}", private.out);
    place.write("posthouse.toml", &config("not-the-password"));
    let bad = place.run(&["check", "--json"]).failed(1);
    assert!(findings(&bad, "fail").iter().any(|t| t.contains("up at")), "{}", bad.out);
    assert!(!bad.out.contains("not-the-password") && !bad.err.contains("not-the-password"));
    // A running relay looks for itself, with the smart hosts of the directory, too.
    place.write("posthouse.toml", &config(&password));
    let running = place.serve();
    place.run(&["smarthost", "test", "up"]).ok();
    place.run(&["smarthost", "add", "dead", "--host", "127.0.0.1:1", "--tls", "none"]).ok();
    let dead = place.run(&["check", "--json"]).failed(1);
    assert!(findings(&dead, "fail").iter().any(|t| t.contains("dead at 127.0.0.1:1")), "{}", dead.out);
    running.stop();
}

/// As root for a relay that runs as another user: files are looked at as that user, and nothing is made. Needs root.
#[test]
fn root_looks_with_the_eyes_of_the_relays_user() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::bare("");
    certificate(&place, "c", "relay.example.net", "100");
    place.write(
        "posthouse.toml",
        "hostname = \"relay.example.net\"\nuser = \"nobody\"\napi = { listen = [] }\n\
         listener = [{ address = [\"127.0.0.1:0\"] }]\ntls = { certificate = \"c.crt\", key = \"c.key\" }\n",
    );
    std::fs::set_permissions(place.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(place.path("c.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let closed = place.run(&["check", "--offline", "--json"]).failed(1);
    assert!(findings(&closed, "fail").iter().any(|t| t.contains("c.key")), "{}", closed.out);
    assert!(!place.path("posthouse-data").exists());
    std::fs::set_permissions(place.path("c.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    place.run(&["check", "--offline"]).ok();
    // What root sets up belongs to the relay's user.
    place.run(&["org", "add", "shop"]).ok();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    for name in ["posthouse-data", "posthouse-data/directory.db", "posthouse-data/queue.db"] {
        assert_eq!(std::fs::metadata(place.path(name)).unwrap().uid(), nobody, "{name}");
    }
    place.run(&["check", "--offline"]).ok();
}
