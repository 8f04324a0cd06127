//! Behind a proxy: the PROXY protocol and XCLIENT are believed from named networks and from nobody else.

use posthouse_tests::prelude::*;

#[test]
fn the_address_in_a_proxy_header_is_the_client_s() {
    let sink = Sink::start();
    let relay = Relay::builder()
        .networks(&["198.51.100.0/24"])
        .listeners("proxy_protocol = [\"127.0.0.0/8\"]")
        .route(&[], &sink.url())
        .start();
    for (client, wanted) in [("198.51.100.7", 250), ("192.0.2.9", 550)] {
        let mut smtp = Smtp::dial(relay.smtp());
        smtp.send(format!("PROXY TCP4 {client} 127.0.0.1 4000 25\r\n").as_bytes()).unwrap();
        smtp.reply().expect(220);
        smtp.ehlo();
        smtp.cmd("MAIL FROM:<me@client.example>").expect(250);
        let reply = smtp.cmd("RCPT TO:<ann@dest.example>");
        assert_eq!(reply.code, wanted, "{client}: {reply}");
        if wanted == 250 {
            smtp.data(&Letter::new("proxied", 500).bytes).expect(250);
        }
    }
    assert!(sink.wait_one().text().contains("198.51.100.7"), "Received names the client");
}

#[test]
fn a_proxy_header_from_anybody_else_is_no_command() {
    let relay = Relay::builder().networks(&[]).start();
    let mut smtp = Smtp::connect(relay.smtp());
    smtp.send(b"PROXY TCP4 198.51.100.7 127.0.0.1 4000 25\r\n").unwrap();
    let said = smtp.drain(Duration::from_secs(2));
    assert!(said.is_empty() || said.starts_with('5') || said.starts_with("421"), "{said}");
}

#[test]
fn xclient_is_offered_and_believed_where_named() {
    let relay = Relay::builder().networks(&["198.51.100.0/24"]).prepare();
    let mut relay = relay;
    relay.start();
    let mut smtp = Smtp::connect(relay.smtp());
    assert!(!smtp.ehlo().mentions("XCLIENT"));
    let reply = smtp.cmd("XCLIENT ADDR=198.51.100.7");
    assert!(reply.code >= 500, "{reply}");

    let trusting =
        Relay::builder().networks(&["198.51.100.0/24"]).listeners("xclient = [\"127.0.0.0/8\"]").start();
    let mut smtp = Smtp::connect(trusting.smtp());
    assert!(smtp.ehlo().mentions("XCLIENT"));
    smtp.cmd("MAIL FROM:<me@client.example>").expect(250);
    assert!(smtp.cmd("RCPT TO:<ann@dest.example>").code >= 500);
    smtp.cmd("RSET").expect(250);
    smtp.cmd("XCLIENT ADDR=198.51.100.7 NAME=[UNAVAILABLE]").expect(220);
    smtp.ehlo();
    smtp.cmd("MAIL FROM:<me@client.example>").expect(250);
    smtp.cmd("RCPT TO:<ann@dest.example>").expect(250);
}
