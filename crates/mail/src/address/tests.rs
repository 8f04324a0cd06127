use proptest::prelude::*;

use super::*;

#[test]
fn accepts_what_the_standard_allows() {
    for (text, local, domain) in [
        ("user@example.com", "user", "example.com"),
        ("User.Name+tag@Example.COM", "User.Name+tag", "example.com"),
        ("\"quoted string\"@example.com", "\"quoted string\"", "example.com"),
        ("\"a@b\"@example.com", "\"a@b\"", "example.com"),
        ("postmaster@xn--bcher-kva.example", "postmaster", "xn--bcher-kva.example"),
        ("nguyễn@bücher.example", "nguyễn", "xn--bcher-kva.example"),
        ("x@localhost", "x", "localhost"),
        ("prtg/alerts=1@a_b.example", "prtg/alerts=1", "a_b.example"),
    ] {
        let address = Address::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((address.local(), address.domain()), (local, domain));
    }
}

#[test]
fn refuses_what_could_be_read_two_ways() {
    for (text, error) in [
        ("user", AddressError::NoDomain),
        ("", AddressError::NoDomain),
        ("a@b@example.com", AddressError::TwoAts),
        ("@host:user@example.com", AddressError::Route),
        ("user@[192.0.2.1]", AddressError::Literal),
        ("user@[IPv6:::1]", AddressError::Literal),
        ("user@example.com.", AddressError::Domain),
        ("user@example..com", AddressError::Domain),
        ("user@-example.com", AddressError::Domain),
        ("user@192.0.2.1", AddressError::Domain),
        ("user@exa mple.com", AddressError::Domain),
        ("user@ｅxample.com", AddressError::Domain),
        ("user＠example.com", AddressError::NoDomain),
        (".user@example.com", AddressError::LocalPart),
        ("us..er@example.com", AddressError::LocalPart),
        ("us er@example.com", AddressError::LocalPart),
        ("\"a\r\nb\"@example.com", AddressError::LocalPart),
        ("\"a\u{2028}b\"@example.com", AddressError::LocalPart),
        ("\"ab\"c@example.com", AddressError::LocalPart),
        ("\"open@example.com", AddressError::LocalPart),
        ("user\0@example.com", AddressError::LocalPart),
    ] {
        assert_eq!(Address::parse(text), Err(error), "{text:?}");
    }
    let long = format!("{}@example.com", "a".repeat(65));
    assert_eq!(Address::parse(&long), Err(AddressError::LocalTooLong));
    let long = format!("a@{}com", "a.".repeat(130));
    assert_eq!(Address::parse(&long), Err(AddressError::Domain));
}

#[test]
fn embedded_routes_are_seen() {
    for text in [
        "user%dest@example.com",
        "\"user@dest\"@example.com",
        "dest!user@example.com",
        "\"a\\\\b\"@example.com",
    ] {
        assert!(Address::parse(text).unwrap().has_embedded_route(), "{text}");
    }
    for text in ["user+tag@example.com", "a/b@example.com", "\"a b\"@example.com"] {
        assert!(!Address::parse(text).unwrap().has_embedded_route(), "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_parses_is_one_line_and_parses_again(text in "\\PC{0,40}@\\PC{0,40}") {
        if let Ok(address) = Address::parse(&text) {
            prop_assert!(!address.as_str().contains(['\r', '\n', '\0']));
            prop_assert!(address.domain().is_ascii());
            prop_assert_eq!(Address::parse(address.as_str()), Ok(address.clone()));
        }
    }

    #[test]
    fn ordinary_addresses_parse(local in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,10}){0,2}", domain in "[a-z]{1,10}\\.(com|vn|example)") {
        let text = format!("{local}@{domain}");
        let address = Address::parse(&text).unwrap();
        prop_assert_eq!(address.as_str(), text.as_str());
    }
}
