use mail::{Clock, IdGenerator};
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_795_500_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn paths() -> ReturnPaths {
    ReturnPaths::new("bounces.example.net", Keys::parse("the first secret of ours").unwrap()).unwrap()
}

fn message() -> MessageId {
    MessageId(MessageId::first_at(NOW).0 | 77)
}

#[test]
fn a_path_names_its_message_and_recipient() {
    let path = paths().sign(message(), Some(65_535)).unwrap();
    assert!(path.local().starts_with(&format!("b1-{}-65535-", message())), "{path}");
    assert!(path.local().len() <= 42, "{path}");
    assert!(path.local().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
    let read = ReturnPath { message: message(), recipient: Some(65_535) };
    assert_eq!(paths().verify(&path, NOW), Ok(read));
    let all = paths().sign(message(), None).unwrap();
    assert_eq!(paths().verify(&all, NOW), Ok(ReturnPath { message: message(), recipient: None }));
}

/// What is signed is on disk at other hosts: a change of the form needs another version.
#[test]
fn the_form_does_not_change() {
    let path = paths().sign(MessageId(7_000_000_000_000_000_000), Some(3)).unwrap();
    assert_eq!(path.as_str(), "b1-6297yx69vr000-3-i4itru7hz555plau@bounces.example.net");
}

#[test]
fn forged_ones_are_not_believed() {
    let path = paths().sign(message(), Some(3)).unwrap().to_string();
    let verified = |text: &str| paths().verify(&Address::parse(text).unwrap(), NOW);
    let id = message().to_string();
    let other = MessageId(message().0 + 1).to_string();
    assert_eq!(verified(&path.replace("-3-", "-4-")), Err(VerpError::Forged));
    assert_eq!(verified(&path.replace(&id, &other)), Err(VerpError::Forged));
    assert_eq!(verified(&path.replace("-3-", "-")), Err(VerpError::Forged), "for all recipients");
    let (local, _) = path.split_once('@').unwrap();
    let (head, mac) = local.rsplit_once('-').unwrap();
    for forged in [&mac[..15], "", &format!("{mac}a"), "aaaaaaaaaaaaaaaa"] {
        assert_eq!(verified(&format!("{head}-{forged}@bounces.example.net")), Err(VerpError::Forged));
    }
    let theirs = ReturnPaths::new("bounces.example.net", Keys::make().unwrap()).unwrap();
    let theirs = theirs.sign(message(), Some(3)).unwrap();
    assert_eq!(paths().verify(&theirs, NOW), Err(VerpError::Forged));
    for none in ["b1-x-3-y", "b1-", "b2-0f3kx7m2c9d4e-3-aaaa", "postmaster", "b1-0f3kx7m2c9d4e-70000-aaaa"] {
        assert_eq!(verified(&format!("{none}@bounces.example.net")), Err(VerpError::NotOurs), "{none}");
    }
}

#[test]
fn a_path_belongs_to_its_domain() {
    let path = paths().sign(message(), Some(3)).unwrap();
    let other = ReturnPaths::new("other.example", Keys::parse("the first secret of ours").unwrap()).unwrap();
    assert_eq!(other.verify(&path, NOW), Err(VerpError::NotOurs));
    let moved = Address::parse(&format!("{}@other.example", path.local())).unwrap();
    assert_eq!(other.verify(&moved, NOW), Err(VerpError::Forged));
    assert!(matches!(ReturnPaths::new("-", Keys::make().unwrap()), Err(VerpError::Domain)));
}

#[test]
fn a_path_expires_with_its_message() {
    let path = paths().sign(message(), Some(3)).unwrap();
    assert!(paths().verify(&path, NOW.plus(DAY * 30)).is_ok());
    assert_eq!(paths().verify(&path, NOW.plus(DAY * 31)), Err(VerpError::Expired));
    let short = paths().with_lifetime(DAY);
    assert_eq!(short.verify(&path, NOW.plus(DAY * 2)), Err(VerpError::Expired));
    assert!(paths().verify(&path, Timestamp(0)).is_ok(), "a clock that went back");
}

#[test]
fn keys_can_be_changed() {
    let old = Keys::parse("the first secret of ours").unwrap();
    let both = ReturnPaths::new("bounces.example.net", old.rotated(1).unwrap()).unwrap();
    let path = paths().sign(message(), None).unwrap();
    assert!(both.verify(&path, NOW).is_ok());
    let path = both.sign(message(), None).unwrap();
    assert_eq!(paths().verify(&path, NOW), Err(VerpError::Forged));
    let gone = ReturnPaths::new("bounces.example.net", old.rotated(0).unwrap()).unwrap();
    assert_eq!(gone.verify(&paths().sign(message(), None).unwrap(), NOW), Err(VerpError::Forged));
}

proptest! {
    #[test]
    fn any_case_and_any_message(id in 0..=i64::MAX as u64, number in proptest::option::of(any::<u16>())) {
        let read = ReturnPath { message: MessageId(id), recipient: number };
        let path = paths().sign(read.message, read.recipient).unwrap();
        let made = read.message.accepted_at();
        prop_assert_eq!(paths().verify(&path, made), Ok(read));
        let shouted = Address::parse(&path.as_str().to_uppercase()).unwrap();
        prop_assert_eq!(paths().verify(&shouted, made), Ok(read));
    }

    #[test]
    fn no_change_of_a_letter_is_believed(octet in 0usize..40, to in "[a-z0-9-]") {
        let path = paths().sign(message(), Some(12)).unwrap();
        let mut text = path.local().to_owned();
        let octet = octet.min(text.len() - 1);
        text.replace_range(octet..=octet, &to);
        if let Ok(changed) = Address::parse(&format!("{text}@bounces.example.net"))
            && let Ok(read) = paths().verify(&changed, NOW)
        {
            // Crockford's base 32 reads o as 0, and i and l as 1: the same path in another spelling.
            prop_assert_eq!(read, ReturnPath { message: message(), recipient: Some(12) });
        }
    }
}

#[test]
fn ids_in_use_say_when_they_were_made() {
    let clock = Clock::system();
    let id = IdGenerator::new(clock.clone(), 5).next();
    assert!(clock.now().since(id.accepted_at()) < Duration::from_secs(5));
}
