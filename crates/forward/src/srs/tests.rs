use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// 2026-11-24T06:00:00Z
const NOW: Timestamp = Timestamp(1_795_500_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn keys(text: &str) -> Keys {
    Keys::parse(text).unwrap()
}

fn at(domain: &str) -> Srs {
    Srs::new(domain, keys("a secret of postsrsd 24ch")).unwrap()
}

/// Made by pysrs 1.0.3, the Python translation of Mail::SRS by its authors, with this key, this day and eight
/// characters of hash.
#[test]
fn the_same_addresses_as_mail_srs_makes() {
    let ours = at("ours.example");
    let first = "SRS0=jA3dX9HD=JN=example.com=Alice@ours.example";
    assert_eq!(ours.forward(&address("Alice@example.com"), NOW), Ok(address(first)));
    let theirs = address("SRS0=jA3dX9HD=JN=example.com=Alice@first.example");
    let second = "SRS1=ZfzRapzX=first.example==jA3dX9HD=JN=example.com=Alice@ours.example";
    assert_eq!(ours.forward(&theirs, NOW).map(|a| a.to_string()), Ok(second.to_owned()));
    let again = address("SRS1=whatever=first.example==jA3dX9HD=JN=example.com=Alice@second.example");
    assert_eq!(
        ours.forward(&again, NOW).map(|a| a.to_string()),
        Ok(second.to_owned()),
        "the middle is left out"
    );
    let quoted = "\"SRS0=BV1MoYJ0=JN=example.com=a b\"@ours.example";
    assert_eq!(ours.forward(&address("\"a b\"@example.com"), NOW), Ok(address(quoted)));
    assert_eq!(ours.reverse(&address(quoted), NOW), Ok(address("\"a b\"@example.com")));
    assert_eq!(ours.reverse(&address(second), NOW), Ok(theirs));
}

#[test]
fn quotes_that_were_taken_off_on_the_way_come_back_where_they_are_needed() {
    let ours = at("ours.example");
    let sender = address("\".al\"@a.example");
    let sent = ours.forward(&sender, NOW).unwrap().to_string();
    assert!(sent.starts_with("\"SRS0="), "{sent}");
    assert_eq!(ours.reverse(&address(&sent.replace('"', "")), NOW), Ok(sender));
}

/// Found by fuzzing: the rewritten address says A-labels, so that it can go where SMTPUTF8 isn't spoken.
#[test]
fn an_international_domain_comes_back_in_a_labels() {
    let ours = at("ours.example");
    let sender = address("al@thư.example");
    let sent = ours.forward(&sender, NOW).unwrap();
    assert!(sent.is_ascii(), "{sent}");
    let back = ours.reverse(&sent, NOW).unwrap();
    assert_eq!((back.local(), back.domain()), (sender.local(), sender.domain()));
    assert_eq!(back, address("al@xn--th-e0a.example"));
}

/// Found by fuzzing.
#[test]
fn an_empty_local_part_comes_back() {
    let ours = at("ours.example");
    let sender = address("\"\"@a.example");
    let sent = ours.forward(&sender, NOW).unwrap();
    assert_eq!(ours.reverse(&sent, NOW), Ok(sender.clone()));
    let bare = address(&sent.to_string().replace('"', ""));
    assert_eq!(ours.reverse(&bare, NOW), Ok(sender), "without its quotes, too");
}

#[test]
fn a_bounce_goes_back_over_every_forwarder() {
    let (one, two, three) = (at("one.example"), at("two.example"), at("three.example"));
    let sender = address("al@a.example");
    let first = one.forward(&sender, NOW).unwrap();
    let second = two.forward(&first, NOW).unwrap();
    let third = three.forward(&second, NOW).unwrap();
    assert!(third.local().starts_with("SRS1=") && third.local().contains("=one.example=="), "{third}");
    // The third one answers to the first, whom it never saw.
    assert_eq!(three.reverse(&third, NOW), Ok(first.clone()));
    assert_eq!(two.reverse(&second, NOW), Ok(first.clone()));
    assert_eq!(one.reverse(&first, NOW), Ok(sender));
}

#[test]
fn case_that_was_folded_on_the_way_does_no_harm() {
    let ours = at("ours.example");
    for sender in ["Alice@example.com", "SRS0+abCD=JN=example.com=Al@first.example"] {
        let sent = ours.forward(&address(sender), NOW).unwrap().to_string();
        for came in [sent.to_lowercase(), sent.to_uppercase()] {
            let back = ours.reverse(&address(&came), NOW).unwrap();
            assert!(back.as_str().eq_ignore_ascii_case(sender), "{came} gave {back}");
        }
    }
}

#[test]
fn an_address_lives_for_21_days() {
    let ours = at("ours.example");
    let sent = ours.forward(&address("al@a.example"), NOW).unwrap();
    let reversed = |days: u32| ours.reverse(&sent, NOW.plus(DAY * days));
    assert!(reversed(0).is_ok() && reversed(21).is_ok());
    assert_eq!(reversed(22), Err(SrsError::Expired));
    assert_eq!(reversed(500), Err(SrsError::Expired));
    let day_before = Timestamp(NOW.millis() - DAY_MS);
    assert!(ours.reverse(&sent, day_before).is_ok(), "another relay's clock is a day behind");
    assert_eq!(ours.reverse(&sent, Timestamp(NOW.millis() - 2 * DAY_MS)), Err(SrsError::Expired));
    let short = at("ours.example").with_age_max_days(3);
    assert_eq!(short.reverse(&sent, NOW.plus(DAY * 4)), Err(SrsError::Expired));
}

#[test]
fn forged_ones_are_refused() {
    let ours = at("ours.example");
    let sent = ours.forward(&address("al@a.example"), NOW).unwrap().to_string();
    let reversed = |text: &str| ours.reverse(&address(text), NOW);
    assert_eq!(reversed(&sent.replace("=al@", "=bo@")), Err(SrsError::Forged));
    assert_eq!(reversed(&sent.replace("=a.example=", "=b.example=")), Err(SrsError::Forged));
    assert_eq!(reversed(&sent.replace("=JN=", "=JO=")), Err(SrsError::Forged), "a later day");
    assert_eq!(reversed("SRS1=aaaaaaaa=a.example==x=JN=b.example=al@ours.example"), Err(SrsError::Forged));
    let hash = &sent[5..13];
    for short in ["", "a", &hash[..4], &hash[..7]] {
        let cut = sent.replace(hash, short);
        let expected = if short.is_empty() { SrsError::Malformed } else { SrsError::Forged };
        assert_eq!(reversed(&cut), Err(expected), "a shorter hash is easier to guess: {cut}");
    }
    let stranger = Srs::new("ours.example", Keys::make().unwrap()).unwrap();
    assert_eq!(stranger.reverse(&address(&sent), NOW), Err(SrsError::Forged));
    for other in ["al@ours.example", "SRS0.x@ours.example", "SRS0@ours.example", "srs@ours.example"] {
        assert_eq!(reversed(other), Err(SrsError::NotOurs), "{other}");
        assert!(!ours.is_ours(&address(other)), "{other}");
    }
    assert_eq!(reversed(&sent.replace("ours", "theirs")), Err(SrsError::NotOurs));
    for broken in ["SRS0=x@ours.example", "SRS0=a=b=c@ours.example", "SRS1=a=b.example=c@ours.example"] {
        assert_eq!(reversed(broken), Err(SrsError::Malformed), "{broken}");
        assert!(ours.is_ours(&address(broken)), "{broken}");
    }
}

#[test]
fn keys_can_be_changed() {
    let sender = address("al@a.example");
    let before = at("ours.example").forward(&sender, NOW).unwrap();
    let both = keys("the new secret, longer\na secret of postsrsd 24ch");
    let both = Srs::new("ours.example", both).unwrap();
    assert_eq!(both.reverse(&before, NOW), Ok(sender.clone()));
    let after = both.forward(&sender, NOW).unwrap();
    assert_ne!(after, before);
    assert_eq!(at("ours.example").reverse(&after, NOW), Err(SrsError::Forged));
}

#[test]
fn the_hash_gives_way_to_a_long_sender_and_no_further_than_four() {
    let ours = at("ours.example");
    // SRS0=HASH=TT=a.example=USER: 19 octets and the hash.
    for (user, hash) in [(37, 8), (38, 7), (39, 6), (40, 5), (41, 4)] {
        let sender = address(&format!("{}@a.example", "u".repeat(user)));
        let sent = ours.forward(&sender, NOW).unwrap();
        assert_eq!(sent.local().split('=').nth(1).map(str::len), Some(hash), "{sent}");
        assert_eq!(sent.local().len(), 64);
        assert_eq!(ours.reverse(&sent, NOW), Ok(sender));
    }
    let long = address(&format!("{}@a.example", "u".repeat(42)));
    assert_eq!(ours.forward(&long, NOW), Err(SrsError::TooLong));
}

#[test]
fn short_hashes_of_another_program_are_believed_where_that_is_wanted() {
    let theirs = address("SRS0=jA3d=JN=example.com=Alice@ours.example");
    assert_eq!(at("ours.example").reverse(&theirs, NOW), Err(SrsError::Forged));
    let lenient = at("ours.example").accepting_short_hashes();
    assert_eq!(lenient.reverse(&theirs, NOW), Ok(address("Alice@example.com")));
    assert!(lenient.reverse(&address("SRS0=jA3=JN=example.com=Alice@ours.example"), NOW).is_err());
}

#[test]
fn our_own_senders_and_wrong_domains() {
    let ours = at("Ours.Example");
    assert_eq!(ours.domain(), "ours.example");
    let own = address("me@ours.example");
    assert_eq!(ours.forward(&own, NOW), Ok(own.clone()));
    assert!(matches!(Srs::new("no domain", keys("a secret of postsrsd 24ch")), Err(SrsError::Domain)));
}

proptest! {
    #[test]
    fn what_is_rewritten_is_turned_back(
        local in "[a-zA-Z0-9=+_.-]{1,30}|\"[a-z @\\.=]{1,20}\"|đ[ấa-z]{1,8}",
        host in "[a-z]{1,8}(\\.[a-z]{2,6}){1,2}",
        days in 0u32..=21,
    ) {
        let Ok(sender) = Address::parse(&format!("{local}@{host}")) else { return Ok(()) };
        let ours = at("ours.example");
        match ours.forward(&sender, NOW) {
            Ok(sent) => {
                prop_assert!(sent.local().len() <= 64);
                prop_assert!(ours.is_ours(&sent));
                let back = ours.reverse(&sent, NOW.plus(DAY * days)).unwrap();
                prop_assert_eq!(&back, &sender);
            }
            Err(error) => prop_assert_eq!(error, SrsError::TooLong),
        }
    }

    #[test]
    fn no_change_of_a_letter_is_believed(at_octet in 5usize..46, to in "[a-z0-9=]") {
        let ours = at("ours.example");
        let sent = ours.forward(&address("alice.bob@example.com"), NOW).unwrap();
        let mut text = sent.local().to_owned();
        let at_octet = at_octet.min(text.len() - 1);
        text.replace_range(at_octet..=at_octet, &to);
        let changed = address(&format!("{text}@ours.example"));
        let same = changed.as_str().eq_ignore_ascii_case(sent.as_str());
        prop_assert_eq!(ours.reverse(&changed, NOW).is_ok(), same, "{}", changed);
    }

    #[test]
    fn no_text_is_a_panic(local in "(?i)SRS[01][=+-]\\PC{0,40}") {
        let ours = at("ours.example");
        if let Ok(odd) = Address::parse(&format!("{local}@ours.example")) {
            let _ = ours.reverse(&odd, NOW);
        }
        if let Ok(odd) = Address::parse(&format!("{local}@other.example")) {
            let _ = ours.forward(&odd, NOW);
        }
    }
}
