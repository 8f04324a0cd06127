//! Records right, wrong and useless against chains as servers show them.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};

use super::*;

/// 2026-01-01.
const NOW: UnixTime = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_767_225_600));

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        Self { issuer: CertifiedIssuer::self_signed(ca(name), KeyPair::generate().unwrap()).unwrap() }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    fn leaf(&self, name: &str, years: (i32, i32)) -> CertificateDer<'static> {
        let parameters = leaf(name, years);
        parameters.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
    }
}

fn ca(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

fn leaf(name: &str, years: (i32, i32)) -> CertificateParams {
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    parameters
}

const VALID: (i32, i32) = (2020, 2100);

/// The record for a certificate.
fn record(usage: u8, selector: u8, matching: u8, of: &CertificateDer<'_>) -> Tlsa {
    let (_, parsed) = parse_x509_certificate(of).unwrap();
    let selected: &[u8] = if selector == 0 { of } else { parsed.tbs_certificate.subject_pki.raw };
    let data = match matching {
        1 => digest(&SHA256, selected).as_ref().into(),
        2 => digest(&SHA512, selected).as_ref().into(),
        _ => selected.into(),
    };
    Tlsa { usage, selector, matching, data }
}

fn check(records: &[Tlsa], chain: &[CertificateDer<'_>]) -> Result<(), CertificateFault> {
    let dane = Dane::new(records, vec!["mx.example".into(), "example".into()]).expect("usable");
    dane.verify(chain, NOW).map_err(|verdict| verdict.fault)
}

const KINDS: [(u8, u8); 6] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)];

#[test]
fn the_certificate_itself_matches_whatever_it_says() {
    let authority = Authority::new("Some authority");
    let other = authority.leaf("mx.example", VALID);
    // Neither its name nor its dates are right: with usage 3 that does not matter (RFC 7671 section 5.1).
    let shown = authority.leaf("elsewhere.test", (2019, 2020));
    let chain = [shown.clone(), authority.der()];
    for (selector, matching) in KINDS {
        let right = record(3, selector, matching, &shown);
        assert_eq!(check(std::slice::from_ref(&right), &chain), Ok(()), "{selector} {matching}");
        let wrong = record(3, selector, matching, &other);
        assert_eq!(
            check(std::slice::from_ref(&wrong), &chain),
            Err(CertificateFault::Tlsa),
            "{selector} {matching}"
        );
        // Any that matches is enough: that is how keys are changed.
        assert_eq!(check(&[wrong, right], &chain), Ok(()), "{selector} {matching}");
        // It must be the server's own.
        let issuers = record(3, selector, matching, &authority.der());
        assert_eq!(check(&[issuers], &chain), Err(CertificateFault::Tlsa), "{selector} {matching}");
    }
}

#[test]
fn an_authority_vouches_for_name_and_dates() {
    let (authority, stranger) = (Authority::new("Ours"), Authority::new("Another"));
    let chain = |leaf: &CertificateDer<'static>| [leaf.clone(), authority.der()];
    let good = authority.leaf("mx.example", VALID);
    for (selector, matching) in KINDS {
        let records = [record(2, selector, matching, &authority.der())];
        assert_eq!(check(&records, &chain(&good)), Ok(()), "{selector} {matching}");
        // The recipient's domain is a name that counts, too.
        let domain = authority.leaf("example", VALID);
        assert_eq!(check(&records, &chain(&domain)), Ok(()), "{selector} {matching}");
        let name = authority.leaf("mx.elsewhere.test", VALID);
        assert_eq!(check(&records, &chain(&name)), Err(CertificateFault::Name), "{selector} {matching}");
        let old = authority.leaf("mx.example", (2019, 2020));
        assert_eq!(check(&records, &chain(&old)), Err(CertificateFault::Expired), "{selector} {matching}");
        let theirs = [stranger.leaf("mx.example", VALID), stranger.der()];
        assert!(check(&records, &theirs).is_err(), "{selector} {matching}");
        // To show the authority's certificate without its signature is not enough.
        let stolen = [stranger.leaf("mx.example", VALID), authority.der()];
        assert!(check(&records, &stolen).is_err(), "{selector} {matching}");
    }
}

#[test]
fn an_authority_in_the_record_need_not_be_in_the_chain() {
    let authority = Authority::new("Ours");
    let alone = [authority.leaf("mx.example", VALID)];
    for selector in [0, 1] {
        assert_eq!(check(&[record(2, selector, 0, &authority.der())], &alone), Ok(()), "{selector}");
        // Of a hash nothing can be made.
        let hashed = check(&[record(2, selector, 1, &authority.der())], &alone);
        assert_eq!(hashed, Err(CertificateFault::Tlsa), "{selector}");
    }
}

#[test]
fn an_authority_may_be_in_the_middle_of_the_chain() {
    let root = Authority::new("Root");
    let key = KeyPair::generate().unwrap();
    let parameters = ca("Middle");
    let middle = parameters.signed_by(&key, &root.issuer).unwrap().der().clone();
    let issuer = Issuer::new(parameters, key);
    let server = leaf("mx.example", VALID).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let chain = [server.der().clone(), middle.clone(), root.der()];
    for anchor in [&middle, &root.der()] {
        assert_eq!(check(&[record(2, 1, 1, anchor)], &chain), Ok(()));
    }
}

#[test]
fn records_that_cannot_be_used_count_for_nothing() {
    let authority = Authority::new("Ours");
    let shown = authority.leaf("mx.example", VALID);
    let right = record(3, 1, 1, &shown);
    let useless = [
        // Usages that ask for the roots of browsers, and one that does not exist.
        Tlsa { usage: 0, ..right.clone() },
        Tlsa { usage: 1, ..right.clone() },
        Tlsa { usage: 4, ..right.clone() },
        Tlsa { selector: 2, ..right.clone() },
        Tlsa { matching: 3, ..right.clone() },
        // Too short, too long, empty, garbage.
        Tlsa { data: right.data[1..].into(), ..right.clone() },
        Tlsa { data: [&*right.data, &[0]].concat().into(), ..right.clone() },
        Tlsa { data: [].into(), matching: 0, ..right.clone() },
        Tlsa { data: b"garbage".as_slice().into(), matching: 0, ..right.clone() },
        Tlsa { data: b"garbage".as_slice().into(), matching: 0, selector: 0, ..right.clone() },
    ];
    for tlsa in &useless {
        assert!(!tlsa.is_usable(), "{tlsa}");
    }
    assert_eq!(Dane::new(&useless, vec!["mx.example".into()]), None);
    // Beside a usable one they do not matter.
    let wrong = record(3, 1, 1, &authority.leaf("mx.example", VALID));
    let chain = [shown];
    assert_eq!(check(&[&useless[..], &[right]].concat(), &chain), Ok(()));
    assert_eq!(check(&[&useless[..], &[wrong]].concat(), &chain), Err(CertificateFault::Tlsa));
}

#[test]
fn of_two_hashes_the_stronger_counts() {
    let authority = Authority::new("Ours");
    let (shown, other) = (authority.leaf("mx.example", VALID), authority.leaf("mx.example", VALID));
    let chain = [shown.clone()];
    // The weaker hash matches, the stronger one names another key (RFC 7671 section 9).
    let both = [record(3, 1, 1, &shown), record(3, 1, 2, &other)];
    assert_eq!(check(&both, &chain), Err(CertificateFault::Tlsa));
    assert_eq!(check(&[record(3, 1, 1, &other), record(3, 1, 2, &shown)], &chain), Ok(()));
    // Of another selector or usage it says nothing.
    assert_eq!(check(&[record(3, 0, 1, &shown), record(3, 1, 2, &other)], &chain), Ok(()));
}

#[test]
fn what_is_no_certificate_never_matches() {
    let shown = CertificateDer::from(b"no certificate".to_vec());
    let authority = Authority::new("Ours");
    let records = [record(3, 1, 1, &authority.leaf("mx.example", VALID))];
    assert_eq!(check(&records, &[shown]), Err(CertificateFault::Other));
    assert_eq!(check(&records, &[]), Err(CertificateFault::Other));
}

#[test]
fn der_is_read_with_care() {
    assert_eq!(sequence(&[0x30, 1, 7]), Some(&[7][..]));
    assert_eq!(sequence(&[0x30, 0x81, 1, 7]), Some(&[7][..]));
    for bad in [
        &[][..],
        &[0x30],
        &[0x31, 1, 7],
        &[0x30, 2, 7],
        &[0x30, 1, 7, 7],
        &[0x30, 0x84, 0, 0, 0, 1, 7],
        &[0x30, 0x83, 0],
    ] {
        assert_eq!(sequence(bad), None, "{bad:?}");
    }
}

#[test]
fn records_are_shown_as_in_zone_files() {
    let tlsa = Tlsa { usage: 3, selector: 1, matching: 1, data: [0x0b, 0xff].as_slice().into() };
    assert_eq!(tlsa.to_string(), "3 1 1 0bff");
}
