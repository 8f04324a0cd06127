use std::path::Path;
use std::time::Duration;

use super::*;

fn errors(text: &str) -> String {
    Config::parse(text, Some(Path::new("/etc/posthouse/posthouse.toml"))).unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_a_relay_on_loopback() {
    let config = Config::parse("", Some(Path::new("/etc/posthouse/posthouse.toml"))).unwrap();
    let listeners: Vec<String> =
        config.listener.iter().map(|l| format!("{} {} {:?}", l.name, l.mode.as_str(), l.address)).collect();
    assert_eq!(
        listeners,
        [
            "smtp smtp [127.0.0.1:2525]",
            "submission submission [127.0.0.1:2587]",
            "submissions submissions [127.0.0.1:2465]"
        ]
    );
    assert_eq!(config.data_dir, Path::new("/etc/posthouse/posthouse-data"));
    assert_eq!(config.socket(), Path::new("/etc/posthouse/posthouse-data/posthouse.sock"));
    assert_eq!(config.api.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert!(!config.hostname.is_empty());
    assert!(config.relay.networks.is_empty(), "a fresh install relays for nobody");
}

#[test]
fn everything_that_can_be_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["upstream.password", "proxy.password", "client.secret"] {
        std::fs::write(dir.path().join(file), "hunter2\n").unwrap();
    }
    let text = include_str!("testdata/full.toml");
    let config = Config::parse(text, Some(&dir.path().join("posthouse.toml"))).unwrap();
    assert_eq!(config.hostname, "relay.example.net");
    assert_eq!(config.listener[0].bare_newline, BareNewline::Refuse);
    assert_eq!(config.listener[1].bare_newline, BareNewline::Normalise);
    assert_eq!(config.tls.certificate, Some(dir.path().join("fullchain.pem")));
    assert_eq!(config.relay.networks[1].org.as_deref(), Some("printers"));
    assert_eq!(config.relay.recipients, Recipients::File(dir.path().join("people.txt")));
    assert_eq!(config.route[0].to.to_string(), "lmtp://127.0.0.1:24");
    let upstream = &config.smarthost["upstream"];
    assert_eq!(upstream.password.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(upstream.hosts.at[0].to_string(), "smtp.upstream.example:587");
    let office = &config.smarthost["office"];
    assert_eq!((office.hosts.at.len(), &office.hosts.weights), (2, &vec![3, 1]));
    assert_eq!(office.login[0].password.as_ref().unwrap().expose(), "hunter2");
    let oauth = office.oauth.as_ref().unwrap();
    assert_eq!(oauth.client_secret.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(oauth.refresh_token_file, Some(dir.path().join("refresh.token")), "read when it is needed");
    let oauth = office.login[1].oauth.as_ref().unwrap();
    assert_eq!(oauth.client_secret.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(oauth.refresh_token_file, Some(dir.path().join("brand.token")));
    outgoing(&config, dir.path());
    assert_eq!(config.queue.retry, [Duration::from_secs(1), Duration::from_secs(300)]);
    assert_eq!(config.queue.max_message_size, 25_000_000);
    // Shown again, it hides the password.
    let shown = toml::to_string(&config).unwrap();
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// What the file says about outgoing mail.
fn outgoing(config: &Config, base: &Path) {
    let delivery = &config.delivery;
    assert_eq!((delivery.connections, delivery.connection_age_max), (3000, Duration::from_secs(120)));
    assert!(delivery.lmtp_starttls);
    assert_eq!(config.egress[1].destinations[1].to_string(), "smtp://10.0.0.5:25");
    let fast = &config.sources["fast"];
    assert_eq!(fast.proxy_password.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(fast.warmup.as_ref().unwrap().plan, [50, 100, 500]);
    assert_eq!(config.pool["news"].sources["fast"], 3);
    assert_eq!(config.egress[0].domains[0].to_string(), "*.example.com");
    assert_eq!(config.shape[0].connection_rate.unwrap().to_string(), "10/1m");
    assert_eq!(config.tls_policy[0].ca_file, Some(base.join("partner.pem")));
    assert_eq!(config.delivery.providers, Some(base.join("providers.toml")));
    assert_eq!(config.suppression.automatic, Automatic::Always);
    assert_eq!(config.dns.dnssec, net::Dnssec::Validate);
    let rules = config.rules();
    assert_eq!((rules.sources.len(), rules.ceilings.len(), rules.aliases.len()), (3, 3, 2));
}

#[test]
fn what_is_shown_reads_back() {
    let text = toml::to_string(&Config::parse("", None).unwrap()).unwrap();
    let again = Config::parse(&text, None).unwrap();
    assert_eq!(toml::to_string(&again).unwrap(), text);
}

#[test]
fn rules_that_are_shown_read_back() {
    let rules = "[source.a]\nipv4 = \"192.0.2.1\"\nwarmup = { start = \"2026-11-24\", plan = [1] }\n[pool.p]\n\
                 sources = { a = 1 }\n[[egress]]\nstreams = [\"bulk\"]\npool = \"p\"\n[[shape]]\nrate = \"5/1s\"\n\
                 [[tls_policy]]\ndomains = [\"a.example\"]\n[suppression]\nautomatic = false\n[smarthost.s]\n\
                 hosts = { \"h.example:25\" = 2 }\n";
    let text = toml::to_string(&Config::parse(rules, None).unwrap()).unwrap();
    let again = Config::parse(&text, None).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(toml::to_string(&again).unwrap(), text);
}

/// Configurations with a mistake or two.
const MISTAKES: &[&str] = &[
    "hostnam = \"relay.example.net\"\n",
    "hostname = 5\n",
    "hostname = \"relay example\"\n",
    "hostname = \n",
    "[[listener]]\naddress = [\"0.0.0.0\"]\n",
    "[[listener]]\naddress = \"0.0.0.0:25\"\n",
    "[[listener]]\nname = \"smtp\"\n",
    "[[listener]]\naddress = [\"0.0.0.0:25\"]\nmode = \"submision\"\n",
    "[[listener]]\naddress = [\"0.0.0.0:25\"]\nbare_newline = \"normalise\"\n",
    "[[listener]]\naddress = [\"0.0.0.0:587\"]\nmode = \"submission\"\nauth = false\n",
    "[[listener]]\naddress = [\"0.0.0.0:25\"]\nxclient = [\"10.0.0.0/33\"]\n",
    "[[listener]]\naddress = [\"0.0.0.0:25\"]\n[[listener]]\naddress = [\"0.0.0.0:25\"]\n",
    "[tls]\ncertificate = \"fullchain.pem\"\n",
    "[acme]\ncontact = \"admin\"\nchallenge = \"dns-01\"\n",
    "[relay]\nnetworks = [\"everyone\"]\n",
    "[relay]\nnetworks = [{ network = \"10.0.0.0/8\", organisation = \"a\" }]\n",
    "[relay]\nrecipients = \"ask\"\n",
    "[relay]\nlocal_domains = [\"*.example.net\"]\n",
    "[[route]]\ndomains = [\"example.net\"]\n",
    "[[route]]\nto = \"smarthost:upstraem\"\n[smarthost.upstream]\nhosts = [\"smtp.example.com:587\"]\n",
    "[[route]]\nto = \"maildir:/var/mail/{name}\"\n",
    "[[route]]\nto = \"maildir:/var/mail/../{user}\"\n",
    "[[route]]\nto = \"example.com\"\n",
    "[[route]]\nsenders = [\"brand example\"]\nto = \"mx\"\n",
    "[smarthost.upstream]\nhosts = [\"smtp.example.com\"]\n",
    "[smarthost.upstream]\nhost = [\"smtp.example.com:587\"]\n",
    "[smarthost.upstream]\nhosts = [\"smtp.example.com:587\"]\nusername = \"user\"\n",
    "[smarthost.upstream]\nhosts = [\"smtp.example.com:587\"]\nusername = \"u\"\npassword_file = \"/nonexistent/password\"\n",
    "[queue]\nlifetime = \"5 days\"\n",
    "[queue]\nlifetime = 5\nwarn_afer = \"1h\"\n",
    "[queue]\nwarn_after = \"6d\"\n",
    "[queue]\nretry = []\nmax_message_size = \"25\"\n",
    "[queue]\nmax_message_size = \"25 mega\"\n",
    "[limits]\nrecipients = 0\nconnections = -1\n",
    "[store]\nengine = \"postgres\"\n",
    "[store]\nengine = \"postgres\"\nurl = \"mysql://db\"\nurl_file = \"db.url\"\nconnections = 1\nhold = \"0\"\n",
    "[store]\nengine = \"postgress\"\nurl = \"mysql://db\"\n[cluster]\nnode = \"a\\u0007\"\nname = \"a\"\n",
    "[store.objects]\nurl = \"https://minio.example.com/mail\"\naccess_key = \"relay\"\nabove = \"much\"\n",
    "[store.objects]\nurl = \"minio.example.com\"\naccess_key = \"relay\"\n",
    "[dns]\nservers = [\"127.0.0.1\"]\nallow_private_targets = \"yes\"\n",
    "[quota]\nx = 1\n",
    "[source.fast]\nipv4 = \"192.0.2.300\"\n",
    "[source.fast]\nipv5 = \"192.0.2.30\"\n",
    "[source.\"a b\"]\nehlo = \"a b\"\n",
    "[source.a]\nproxy = \"http://127.0.0.1:80\"\n",
    "[source.a]\nproxy = \"proxy://127.0.0.1:80\"\n",
    "[source.a]\nipv4 = \"192.0.2.1\"\nwarmup = { start = \"24.11.2026\", plan = [50] }\n",
    "[source.a]\nipv4 = \"192.0.2.1\"\nwarmup = { start = \"2026-11-24\", plan = [] }\n",
    "[source.a]\nipv4 = \"192.0.2.1\"\n[source.b]\nipv4 = \"192.0.2.1\"\n",
    "[source.fast]\n[pool.news]\nsources = { fats = 1 }\n",
    "[pool.news]\n",
    "[pool.news]\nsources = { default = 1 }\n[[egress]]\npool = \"new\"\n",
    "[[egress]]\nstreams = [\"newsletters\"]\npool = \"default\"\n",
    "[[egress]]\ndomains = [\"a@example.com\"]\npool = \"default\"\n",
    "[[shape]]\nsites = [\"g mail\"]\nconnections = 1\n",
    "[[shape]]\nsites = [\"gmail\"]\nrate = \"100 per minute\"\n",
    "[[shape]]\nsites = [\"gmail\"]\nconnections = 0\n",
    "[[shape]]\nsites = [\"gmail\"]\n",
    "[[ceiling]]\norg = \"acme\"\ncredential = \"printer\"\nrate = \"1/1s\"\n",
    "[[ceiling]]\ncredential = \"printer\"\nconnections = 1\n",
    "[[ceiling]]\nto = \"smarthost:up\"\nrate = \"1/1s\"\n",
    "[[ceiling]]\norg = \"acme\"\nrate = \"1/1s\"\n[[ceiling]]\norg = \"Acme\"\nrate = \"2/1s\"\n",
    "[[tls_policy]]\ndomains = [\"a.example\"]\nlevel = \"required\"\n",
    "[[tls_policy]]\ndomains = [\"a.example\"]\nlevel = \"dane\"\nnames = [\"b.example\"]\n",
    "[[tls_policy]]\ndomains = [\"a.example\"]\nclient_key = \"k\"\n",
    "[smarthost.up]\nhosts = { \"a.example:587\" = 0 }\n",
    "[smarthost.up]\nhosts = [\"a.example:587\"]\norder = \"random\"\n",
    "[smarthost.up]\nhosts = [\"a.example:587\"]\n[smarthost.up.oauth]\ntoken_url = \"http://a.example\"\nclient_id = \"x\"\n",
    "[smarthost.up]\nhosts = [\"a.example:587\"]\n[[smarthost.up.login]]\nusername = \"x\"\n",
    "[[alias]]\nfrom = \"sales\"\nto = [\"a@example.net\"]\n",
    "[[alias]]\nfrom = \"a@example.net\"\nto = [\"b\"]\n",
    "[[rewrite]]\npattern = \"(\"\nreplace = \"x\"\n",
    "[forward]\nsrs_domain = \"a.example\"\nbounce_domain = \"A.example\"\n",
    "[suppression]\nautomatic = \"all\"\n",
    "[dns]\ndnssec = \"yes\"\n",
    "[delivery]\ntls_reports_from = \"postmaster\"\n",
    "[delivery]\nconnection_age_max = \"0s\"\n",
    "[[egress]]\ndestinations = [\"smarthost:up\"]\npool = \"default\"\n",
    "[[egress]]\ndestinations = [\"smtp://a.example:25\", \"mx:a.example\"]\npool = \"default\"\n",
    "[[egress]]\ndestinations = [\"discard\"]\npool = \"default\"\n",
    "[smarthost.up]\nhosts = [\"a.example:587\"]\n[[smarthost.up.login]]\nusername = \"x\"\npassword = \"p\"\n\
     [smarthost.up.login.oauth]\ntoken_url = \"https://a.example\"\nclient_id = \"x\"\n",
    "[smarthost.up]\nhosts = [\"a.example:587\"]\n[[smarthost.up.login]]\nusername = \"x\"\n\
     [smarthost.up.login.oauth]\ntoken_url = \"http://a.example\"\nclient_id = \"x\"\nclient_secret = \"s\"\n",
];

/// Every message in one snapshot: what a person sees for each mistake.
#[test]
fn mistakes_are_shown_with_their_place_and_what_to_write() {
    let mut all = String::new();
    for case in MISTAKES {
        all.push_str(&errors(case));
        all.push_str("\n----\n");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn keys_of_later_versions_pass_when_they_change_nothing() {
    let text = "[store]\nengine = \"embedded\"\nurl = \"\"\ndurability = \"checked\"\n[history]\nkeep_messages = \"0\"\n\
        [api]\ntls = \"auto\"\npublic_url = \"\"\n[tls]\nca_file = \"\"\n";
    assert_eq!(Config::parse(text, None).unwrap().tls.ca_file, None);
    assert!(Config::parse("[history]\nkeep_messages = \"1d\"\n", None).is_err());
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let error = Config::load(Path::new("/nonexistent/posthouse.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/posthouse.toml cannot be read"), "{error}");
}

#[test]
fn a_secret_file_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[smarthost.a]\nhosts = [\"h:25\"]\nusername = \"u\"\npassword_file = \"p\"\n";
    for (content, fine) in
        [("x", true), ("x\r\n", true), ("x \n", true), ("", false), ("\n", false), ("x\ny\n", false)]
    {
        std::fs::write(dir.path().join("p"), content).unwrap();
        let parsed = Config::parse(text, Some(&dir.path().join("c.toml")));
        assert_eq!(parsed.is_ok(), fine, "{content:?}");
    }
}

#[test]
fn the_committed_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference/config.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == reference(),
        "docs/src/reference/config.md is old: write it with `posthouse config reference > docs/src/reference/config.md`"
    );
}

#[test]
fn every_key_is_documented() {
    fn walk(schema: &serde_json::Value, path: &str) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            assert!(property["description"].is_string(), "{path} has no description");
            walk(property, &path);
            walk(&property["items"], &path);
            walk(&property["additionalProperties"], &path);
        }
    }
    walk(&reference::inline_schema(), "");
}

#[test]
fn places_are_found() {
    let config =
        Config::parse("\n[queue]\nretry = [\"1m\",\n  \"5m\"]\n", Some(Path::new("p.toml"))).unwrap();
    assert_eq!(config.source.place("queue.retry[1]"), "p.toml:4");
    assert_eq!(config.source.place("queue.lifetime"), "p.toml:2");
    assert_eq!(config.source.place("tls"), "p.toml");
}
