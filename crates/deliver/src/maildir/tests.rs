use super::*;

fn mailbox(template: &str, address: &str) -> Option<String> {
    expand(template, &Address::parse(address).unwrap()).ok().map(|path| path.display().to_string())
}

#[test]
fn templates() {
    let two = "/mail/{domain}/{user}/";
    assert_eq!(mailbox(two, "Ann.Lee@Example.NET").as_deref(), Some("/mail/example.net/ann.lee/"));
    assert_eq!(mailbox("/mail/all", "a@example.net").as_deref(), Some("/mail/all"));
    assert_eq!(mailbox("/m/{x}/{user", "a@example.net").as_deref(), Some("/m/{x}/{user"));
    assert_eq!(mailbox(two, "\"a b\"@example.net").as_deref(), Some("/mail/example.net/a b/"));
    assert_eq!(mailbox(two, "ü@bücher.example").as_deref(), Some("/mail/xn--bcher-kva.example/ü/"));
    for bad in
        ["\"\"@a.net", "\".\"@a.net", "\"..\"@a.net", "a/b@a.net", "\"a\\\\b\"@a.net", "\"a/../b\"@a.net"]
    {
        assert_eq!(mailbox(two, bad), None, "{bad}");
    }
}

#[test]
fn a_loop_is_seen_whatever_the_case() {
    let address = Address::parse("Ann@example.net").unwrap();
    assert!(goes_round(&["ann@example.net".into()], &address));
    assert!(goes_round(&["<ann@example.net>".into()], &address));
    assert!(!goes_round(&["anne@example.net".into()], &address));
}
