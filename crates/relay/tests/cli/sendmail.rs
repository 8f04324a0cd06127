//! `posthouse sendmail`, by whatever name it is called.

use std::os::unix::fs::symlink;

use crate::common::*;

fn raw(place: &Place, to: &str) -> String {
    let list = place.run(&["queue", "list", "--json", "--to", to]).ok().json();
    let id = list[0]["id"].as_str().unwrap_or_else(|| panic!("{list:#}")).to_owned();
    place.run(&["queue", "show", &id, "--raw"]).ok().out
}

#[test]
fn programs_that_know_sendmail_can_use_it() {
    let place = Place::new();
    let _running = place.serve();
    let bin = env!("CARGO_BIN_EXE_posthouse");
    let (sendmail, mailq) = (place.path("sendmail"), place.path("mailq"));
    symlink(bin, &sendmail).unwrap();
    symlink(bin, &mailq).unwrap();
    let mail = "To: Bob <bob@example.org>,\n carol@example.org\nBcc: hidden@example.org\nSubject: x\n\n.leading\n.\nnot this\n";
    place.run_as(&sendmail, &["-t", "-fann@example.com", "-F", "Ann", "-odb", "-oem"], mail).ok();
    for to in ["bob@example.org", "carol@example.org", "hidden@example.org"] {
        let raw = raw(&place, to);
        assert!(
            raw.contains("\r\nFrom: Ann <ann@example.com>\r\n") && raw.contains("\r\nMessage-ID: <"),
            "{raw}"
        );
        assert!(!raw.contains("hidden") && !raw.contains("Bcc"), "{raw}");
        assert!(raw.ends_with("\r\n\r\n.leading\r\n"), "{raw}");
    }
    assert!(place.run_as(&mailq, &[], "").ok().out.contains("bob@example.org"));
    // The null sender, and a user of this machine.
    place.run_as(&sendmail, &["-i", "-f", "<>", "root"], "Subject: y\n\n.\n").ok();
    assert!(raw(&place, "root@relay.example.net").ends_with("\r\n\r\n.\r\n"));
    let list = place.run(&["queue", "list", "--json", "--from", "<>"]).ok().json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    place.run_as(&sendmail, &["-t"], "Subject: z\n\n").failed(2);
    place.run_as(&sendmail, &["not an address"], "Subject: z\n\n").failed(1);
    place.run_as(&sendmail, &["-bz", "a@b.example"], "").failed(2);
}

#[test]
fn a_user_who_may_not_use_the_socket_sends_by_smtp() {
    let server = Place::with("relay = { networks = [\"127.0.0.1\"] }\nroute = [{ to = \"sandbox\" }]\n");
    let running = server.serve();
    let at = server.listens("smtp");
    // The same listener, and a data directory where no socket is.
    let user =
        Place::bare(&format!("hostname = \"pc.example.net\"\nlistener = [{{ address = [\"{at}\"] }}]\n"));
    user.run_with(&["sendmail", "-fann@example.com", "bob@example.org"], "Subject: x\n\n..two dots\nGrüße\n")
        .ok();
    let raw = raw(&server, "bob@example.org");
    assert!(raw.contains("\r\nDate: ") && raw.ends_with("\r\n\r\n..two dots\r\nGrüße\r\n"), "{raw}");
    let smtp = user.run_with(&["sendmail", "-bs"], "EHLO pc.example.net\r\nQUIT\r\n").ok();
    assert!(smtp.out.starts_with("220 relay.example.net") && smtp.out.contains("\r\n221 "), "{}", smtp.out);
    running.stop();
    let later = user.run_with(&["sendmail", "bob@example.org"], "Subject: x\n\n").failed(75);
    assert!(later.err.contains(&at.to_string()), "{}", later.err);
}

/// Recipients of all messages in the queue, and how many each message has.
fn parts(place: &Place) -> (Vec<String>, Vec<usize>) {
    let list = place.run(&["queue", "list", "--json", "--limit", "0"]).ok().json();
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    for delivery in list.as_array().unwrap() {
        let to = delivery["recipients"].as_array().unwrap();
        sizes.push(to.len());
        all.extend(to.iter().map(|r| r["address"].as_str().unwrap().to_owned()));
    }
    all.sort_unstable();
    (all, sizes)
}

#[test]
fn more_recipients_than_a_message_may_have_get_it_in_parts() {
    let base = "limits = { recipients = 100 }\nrelay = { networks = [\"127.0.0.1\"] }\nroute = [{ to = \"sandbox\" }]\n";
    let server = Place::with(base);
    let _running = server.serve();
    let at = server.listens("smtp");
    let mut to: Vec<String> = (0..250).map(|n| format!("u{n:03}@example.org")).collect();
    let mail = format!("To: {}\nSubject: x\n\nbody\n", to.join(",\n "));
    let sent = server.run_with(&["sendmail", "-t", "-v", "-fann@example.com"], &mail).ok();
    assert_eq!(sent.err.lines().count(), 3, "an id for each part: {}", sent.err);
    assert_eq!(parts(&server), (to.clone(), vec![100, 100, 50]));
    server.run(&["queue", "remove", "--all"]).ok();

    // By SMTP it is the relay that says how many it takes.
    let user = Place::bare(&format!("listener = [{{ address = [\"{at}\"] }}]\n"));
    user.run_with(&["sendmail", "-t", "-fann@example.com"], &mail).ok();
    assert_eq!(parts(&server), (to.clone(), vec![100, 100, 50]));
    server.run(&["queue", "remove", "--all"]).ok();

    // Who has it, where one of the others is refused.
    server.run(&["suppression", "add", &to[150]]).ok();
    let refused = server.run_with(&["sendmail", "-t", "-fann@example.com"], &mail).failed(1);
    assert!(refused.err.contains("taken for the first 100 of 250 recipients"), "{}", refused.err);
    to.truncate(100);
    assert_eq!(parts(&server), (to, vec![100]));
}

#[test]
fn a_refusal_says_what_to_do() {
    let server = Place::new();
    let _running = server.serve();
    let at = server.listens("smtp");
    let user = Place::bare(&format!("listener = [{{ address = [\"{at}\"] }}]\n"));
    let refused =
        user.run_with(&["sendmail", "-fann@example.com", "bob@example.org"], "Subject: x\n\n").failed(1);
    assert!(refused.err.contains("5.7.1") && refused.err.contains("relay.networks"), "{}", refused.err);
}
