//! Everything that people and programs send mail with, through the relay, byte for byte.

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::neighbours::exim::Exim;
use posthouse_tests::neighbours::postfix::Postfix;
use posthouse_tests::neighbours::submitters::{self, Submission};
use posthouse_tests::prelude::*;

const TO: [&str; 2] = ["ann@dest.example", "bob@other.example"];

/// Each submitter logs in over STARTTLS on the submission port, and again with TLS from the first octet.
fn submits(name: &str) {
    let (_, need, send) = submitters::ALL.into_iter().find(|s| s.0 == name).unwrap();
    if let Some(why) = posthouse_tests::neighbours::missing(need) {
        return posthouse_tests::neighbours::skip(&why);
    }
    let sink = Sink::start();
    let relay = Relay::builder().networks(&[]).route(&[], &sink.url()).start();
    let password = relay.credential("office", &[]);
    for (server, implicit_tls) in [(relay.submission(), false), (relay.submissions(), true)] {
        let letter = Letter::new(format!("{name}-{implicit_tls}"), 20_000);
        let login = Some(("office", password.as_str()));
        let how = Submission { server, implicit_tls, from: "me@client.example", to: &TO, login };
        send(&how, &letter, relay.scratch());
        let all = sink
            .wait_until("both recipients", Duration::from_secs(20), |m| recipients(m, &letter.id).len() == 2);
        for message in all.iter().filter(|m| Letter::from_arrived(&m.data).id == letter.id) {
            letter.assert_arrived(&message.data);
            assert_eq!(message.sender(), "me@client.example");
            assert!(message.text().contains("with ESMTPSA"), "RFC 3848: {}", message.text());
        }
        assert_eq!(recipients(&sink.messages(), &letter.id), TO);
    }
}

fn recipients(messages: &[Received], id: &str) -> Vec<String> {
    let ours = messages.iter().filter(|m| Letter::from_arrived(&m.data).id == id);
    let mut all: Vec<String> = ours.flat_map(|m| m.recipients().into_iter().map(str::to_owned)).collect();
    all.sort();
    all
}

#[test]
fn swaks_submits() {
    submits("swaks");
}

#[test]
fn msmtp_submits() {
    submits("msmtp");
}

#[test]
fn msmtp_submits_with_scram() {
    needs!("msmtp");
    let sink = Sink::start();
    let relay = Relay::builder().networks(&[]).route(&[], &sink.url()).start();
    let password = relay.credential("office", &[]);
    let letter = Letter::new("scram", 2_000);
    let file = relay.scratch().join("scram.eml");
    std::fs::write(&file, String::from_utf8_lossy(&letter.bytes).replace("\r\n", "\n")).unwrap();
    let line = format!(
        "msmtp --file=/dev/null --host=127.0.0.1 --port={} --from=me@client.example --auth=scram-sha-256 --user=office \
         --passwordeval='echo {password}' --tls=on --tls-starttls=on --tls-certcheck=off ann@dest.example < '{}'",
        relay.submission().port(),
        file.display()
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &line]);
    posthouse_tests::process::run("msmtp", shell, Duration::from_secs(20));
    letter.assert_arrived(&sink.wait_one().data);
}

#[test]
fn curl_submits() {
    submits("curl");
}

#[test]
fn python_smtplib_submits() {
    submits("smtplib");
}

#[test]
fn nodemailer_submits() {
    submits("nodemailer");
}

#[test]
fn postfix_hands_on_its_mail() {
    needs!("root", "postfix");
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    let postfix = Postfix::relaying_to(relay.smtp(), "");
    for n in 0..5 {
        let letter = Letter::odd(format!("from-postfix-{n}"));
        send_one(postfix.addr(), "me@client.example", &TO[..1], &letter.bytes).expect(250);
        let all = sink.wait(n + 1, Duration::from_secs(20));
        letter.assert_arrived(&all[n].data);
        assert_eq!(all[n].recipients(), &TO[..1]);
    }
}

#[test]
fn exim_hands_on_its_mail() {
    needs!("root", "exim4");
    let sink = Sink::start();
    let relay = Relay::routed_to(&sink.url());
    let exim = Exim::relaying_to(relay.smtp());
    let letter = Letter::new("from-exim", 50_000);
    send_one(exim.addr(), "me@client.example", &TO[..1], &letter.bytes).expect(250);
    letter.assert_arrived(&sink.wait_one().data);
}
