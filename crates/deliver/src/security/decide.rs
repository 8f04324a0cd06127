//! Which level a connection needs: the operator's rules, then DANE, then MTA-STS, then as much as can be had.

use std::sync::Arc;

use mail::{Disposition, EnhancedStatus, Outcome, Security, SmartHostTls, TlsLevel};
use net::sts::{StsAnswer, StsFault, StsFaultKind, StsMode, StsPolicy};
use net::{Dane, MxAnswer, MxHost, Named, NoTlsa, Resolver, TlsaAnswer, Trust};

use super::requirement::{Report, Requirement, Starttls, Tested, refused_requiretls};
use super::results::{PolicySeen, PolicyType, ResultType};
use super::rules::{TlsOverride, TlsRules};

/// What a message asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// It came with REQUIRETLS (RFC 8689 section 2).
    pub(crate) require_tls: bool,
    /// It says `TLS-Required: No` (RFC 8689 section 3).
    pub(crate) tls_optional: bool,
}

/// A connection that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The recipients' domain: lower case, A-labels.
    pub(crate) domain: &'a str,
    /// Its mail exchangers.
    pub(crate) mx: &'a MxAnswer,
    /// The one in question.
    pub(crate) host: &'a MxHost,
    /// Its port.
    pub(crate) port: u16,
    /// What the message asks for.
    pub(crate) flags: Flags,
}

/// Finds out how a connection to a mail exchanger must be protected. Asks the DNS, and for MTA-STS a web server: what
/// they say is remembered.
pub(crate) async fn requirement(asked: &Asked<'_>, resolver: &Resolver, rules: &TlsRules) -> Requirement {
    let rule = rules.rule_for(asked.domain);
    let flags = asked.flags;
    if let Some(rule) = rule {
        let found = by_rule(rule, asked, resolver).await;
        let names_it = rule.level == TlsLevel::Verify && !rule.names.is_empty();
        let enough = rule.level == TlsLevel::Dane || names_it || !flags.require_tls;
        if enough {
            return Requirement { requiretls_param: flags.require_tls, ..found };
        }
        if rule.level == TlsLevel::None {
            return barred(
                found,
                refused_requiretls("a rule of this relay's operator says no TLS for this domain"),
            );
        }
        // The rule asks for less than the message does, or trusts the DNS for the host's name.
        let policy = require(by_policy(asked, resolver, rules).await, asked);
        let trust = if rule.level == TlsLevel::Verify { found.trust } else { policy.trust.clone() };
        return Requirement { identity: found.identity, trust, ..policy };
    }
    if flags.tls_optional && !flags.require_tls {
        let why = "the sender says that delivery matters more than TLS (TLS-Required: No)";
        return plain(asked, "opportunistic", why.to_owned(), Starttls::May, None);
    }
    let found = by_policy(asked, resolver, rules).await;
    if flags.require_tls { require(found, asked) } else { found }
}

/// How a connection to a host that the operator named must be protected: its name is right by the operator's word, so
/// that REQUIRETLS asks for no more than a certificate and the keyword.
pub(crate) fn named(host: &str, tls: SmartHostTls, flags: Flags) -> Requirement {
    let (level, why, starttls, trust) = match tls {
        SmartHostTls::Required => {
            ("required", "the operator's word for this host", Starttls::Must, Trust::Verified)
        }
        // TLS is there before the first word.
        SmartHostTls::Implicit => {
            ("required", "the operator's word for this host", Starttls::Never, Trust::Verified)
        }
        SmartHostTls::Opportunistic if flags.require_tls => {
            ("required", "the sender requires TLS (REQUIRETLS)", Starttls::Must, Trust::Verified)
        }
        SmartHostTls::Opportunistic => {
            ("opportunistic", "the operator's word for this host", Starttls::May, Trust::Opportunistic)
        }
        SmartHostTls::None => {
            ("none", "the operator's word for this host", Starttls::Never, Trust::Opportunistic)
        }
    };
    let no_tls = tls == SmartHostTls::None && flags.require_tls;
    Requirement {
        why: Security { level: level.into(), why: why.into() },
        starttls,
        trust,
        tls_name: host.into(),
        identity: None,
        requiretls_param: flags.require_tls,
        barred: no_tls.then(|| refused_requiretls("the next host is configured to be without TLS")),
        report: Report { policy: None, before: None, tested: None },
    }
}

/// The operator's rule.
async fn by_rule(rule: &TlsOverride, asked: &Asked<'_>, resolver: &Resolver) -> Requirement {
    let why = |what: &str| format!("a rule of this relay's operator for {}: {what}", asked.domain);
    let mut found = match rule.level {
        TlsLevel::None => plain(asked, "none", why("no TLS"), Starttls::Never, None),
        TlsLevel::Opportunistic => {
            plain(asked, "opportunistic", why("TLS where it works"), Starttls::May, None)
        }
        TlsLevel::Encrypt => plain(asked, "encrypt", why("TLS with any certificate"), Starttls::Must, None),
        TlsLevel::Verify => {
            let of =
                if rule.names.is_empty() { asked.host.name.to_string() } else { rule.names.join(" or ") };
            let what = why(&format!("a certificate for {of}"));
            let named = Named { names: rule.names.clone(), roots: rule.roots.clone() };
            let trust = Trust::Named(Arc::new(named));
            Requirement { trust, ..plain(asked, "verify", what, Starttls::Must, None) }
        }
        TlsLevel::Dane => match resolver.tlsa(&asked.host.name, asked.port).await {
            Ok(answer) => {
                let named = by_tlsa(asked, &answer);
                let missing = format!("{} has no TLSA records that could be used", asked.host.name);
                match named.filter(|found| found.trust != Trust::Opportunistic) {
                    Some(found) => found,
                    None => barred(
                        plain(asked, "dane", why("TLSA records"), Starttls::Must, None),
                        deferred(5, &format!("{missing}; {}", why("TLSA records are a must"))),
                    ),
                }
            }
            Err(error) => no_tlsa_answer(asked, &error),
        },
    };
    found.identity.clone_from(&rule.identity);
    found.report = Report { policy: None, before: None, tested: None };
    found
}

/// What the domain's own policies say.
async fn by_policy(asked: &Asked<'_>, resolver: &Resolver, rules: &TlsRules) -> Requirement {
    let mut without_dane = None;
    let mut by_host = None;
    if rules.dane {
        match resolver.tlsa(&asked.host.name, asked.port).await {
            Ok(answer) => {
                without_dane = answer.none;
                by_host = by_tlsa(asked, &answer);
            }
            Err(error) if error.is_temporary() => return no_tlsa_answer(asked, &error),
            // The host does not exist; whoever connects to it finds out.
            Err(_) => {}
        }
    }
    // TLSA records say who the host is, signed MX records that it is the domain's.
    let is_dane = |found: &Requirement| found.trust != Trust::Opportunistic;
    if asked.mx.secure && by_host.as_ref().is_some_and(is_dane) {
        return by_host.unwrap_or_else(|| opportunistic(asked, None, None));
    }
    let sts = match &rules.sts {
        Some(cache) => cache.answer(asked.domain).await,
        None => StsAnswer::default(),
    };
    let mode = sts.policy.as_ref().map(|policy| policy.mode);
    match (sts.policy, by_host) {
        (Some(policy), _) if policy.mode == StsMode::Enforce => by_sts(asked, &policy, sts.fault.as_deref()),
        // Encryption without verification, or the records of a host whose way to the domain is not signed.
        (_, Some(found)) => found,
        (policy, None) => {
            let testing = policy.filter(|_| mode == Some(StsMode::Testing));
            let mut found = opportunistic(asked, without_dane, testing.as_deref());
            found.report.before = sts.fault.as_deref().map(|fault| fetch_failure(asked, fault));
            found
        }
    }
}

/// What TLSA records of the host ask for; none where there are none.
fn by_tlsa(asked: &Asked<'_>, answer: &TlsaAnswer) -> Option<Requirement> {
    if answer.records.is_empty() {
        return None;
    }
    let records: Vec<String> = answer.records.iter().map(ToString::to_string).collect();
    let policy =
        PolicySeen { domain: asked.domain.into(), kind: PolicyType::Tlsa, text: records.clone(), mx: vec![] };
    let at = format!("_{}._tcp.{}", asked.port, answer.base);
    let Some(dane) = Dane::new(&answer.records, vec![answer.base.clone(), asked.domain.into()]) else {
        let why =
            format!("no TLSA record at {at} can be used, so there must be TLS, but nothing to verify it by");
        return Some(plain(asked, "encrypt", why, Starttls::Must, Some(policy)));
    };
    let count = match dane.records() {
        [only] => format!("the TLSA record {} {} {}", only.usage, only.selector, only.matching),
        more => format!("{} TLSA records", more.len()),
    };
    let unsigned = if asked.mx.secure { "" } else { "; the MX records of the domain are not signed" };
    let why = format!("{count} at {at}, signed{unsigned}");
    Some(Requirement {
        trust: Trust::Dane(Arc::new(dane)),
        tls_name: answer.base.clone(),
        ..plain(asked, "dane", why, Starttls::Must, Some(policy))
    })
}

/// The DNS gives no answer: to go on would let anyone switch DANE off (RFC 7672 section 2.1.1).
fn no_tlsa_answer(asked: &Asked<'_>, error: &net::ResolveError) -> Requirement {
    let host = &asked.host.name;
    let policy = PolicySeen { domain: asked.domain.into(), kind: PolicyType::Tlsa, text: vec![], mx: vec![] };
    let why = format!("it cannot be found out whether {host} has TLSA records");
    let mut found = plain(asked, "dane", why.clone(), Starttls::Must, None);
    found.report.before = Some((policy, ResultType::DnssecInvalid, error.to_string()));
    barred(found, deferred(5, &format!("{why}: {error}")))
}

/// A policy in enforce mode.
fn by_sts(asked: &Asked<'_>, policy: &StsPolicy, fault: Option<&StsFault>) -> Requirement {
    let why = format!("the MTA-STS policy of {} (mode: enforce)", asked.domain);
    let found = Requirement {
        trust: Trust::Verified,
        ..plain(asked, "mta-sts", why, Starttls::Must, Some(sts_seen(asked, policy)))
    };
    let mut found = if policy.names(&asked.host.name) {
        found
    } else {
        let text = format!(
            "{} is not one of the mail exchangers that the MTA-STS policy of {} names ({})",
            asked.host.name,
            asked.domain,
            policy.mx.join(", ")
        );
        barred(found, deferred(1, &text))
    };
    found.report.before = fault.map(|fault| fetch_failure(asked, fault)).filter(|_| found.allowed());
    found
}

/// No policy: as much as can be had.
fn opportunistic(
    asked: &Asked<'_>,
    without_dane: Option<NoTlsa>,
    testing: Option<&StsPolicy>,
) -> Requirement {
    let mut why = String::new();
    if let Some(reason) = without_dane {
        why = format!("{} {}; ", asked.host.name, reason.as_str());
    }
    why += &match testing {
        Some(_) => format!("the MTA-STS policy of {} is only being tested (mode: testing)", asked.domain),
        None => format!("{} has no policy that asks for more", asked.domain),
    };
    let seen = match testing {
        Some(policy) => sts_seen(asked, policy),
        None => PolicySeen {
            domain: asked.domain.into(),
            kind: PolicyType::NoPolicyFound,
            text: vec![],
            mx: vec![],
        },
    };
    let mut found = plain(asked, "opportunistic", why, Starttls::May, Some(seen));
    found.report.tested =
        testing.map(|policy| if policy.names(&asked.host.name) { Tested::Verify } else { Tested::NotNamed });
    found
}

/// What REQUIRETLS asks for beyond what was found (RFC 8689 section 4.2.1): a host that is the domain's beyond doubt, by
/// DNSSEC or MTA-STS, a certificate that is verified, and the keyword.
fn require(found: Requirement, asked: &Asked<'_>) -> Requirement {
    let found = Requirement { requiretls_param: true, starttls: Starttls::Must, ..found };
    if !found.allowed() {
        return found;
    }
    let by_sts = found.why.level == "mta-sts";
    if !asked.mx.secure && !by_sts {
        let why = format!(
            "nothing proves that {} is a mail exchanger of {}: neither DNSSEC nor an MTA-STS policy",
            asked.host.name, asked.domain
        );
        return barred(found, refused_requiretls(&why));
    }
    if by_sts || found.why.level == "dane" {
        return found;
    }
    let why = Security {
        level: "required".into(),
        why: format!("the sender requires TLS (REQUIRETLS); {} is signed in the DNS", asked.domain),
    };
    Requirement { trust: Trust::Verified, why, ..found }
}

fn sts_seen(asked: &Asked<'_>, policy: &StsPolicy) -> PolicySeen {
    PolicySeen {
        domain: asked.domain.into(),
        kind: PolicyType::Sts,
        text: policy.lines(),
        mx: policy.mx.clone(),
    }
}

fn fetch_failure(asked: &Asked<'_>, fault: &StsFault) -> (PolicySeen, ResultType, String) {
    let policy = PolicySeen { domain: asked.domain.into(), kind: PolicyType::Sts, text: vec![], mx: vec![] };
    let result = match fault.kind {
        StsFaultKind::Fetch => ResultType::StsPolicyFetchError,
        StsFaultKind::Invalid => ResultType::StsPolicyInvalid,
        StsFaultKind::Certificate => ResultType::StsWebpkiInvalid,
    };
    (policy, result, fault.text.clone())
}

/// A requirement without verification.
fn plain(
    asked: &Asked<'_>,
    level: &str,
    why: String,
    starttls: Starttls,
    policy: Option<PolicySeen>,
) -> Requirement {
    Requirement {
        why: Security { level: level.into(), why },
        starttls,
        trust: Trust::Opportunistic,
        tls_name: asked.host.name.clone(),
        identity: None,
        requiretls_param: false,
        barred: None,
        report: Report { policy, before: None, tested: None },
    }
}

fn barred(found: Requirement, outcome: Outcome) -> Requirement {
    Requirement { barred: Some(outcome), ..found }
}

fn deferred(detail: u16, text: &str) -> Outcome {
    Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 7, detail), text)
}
