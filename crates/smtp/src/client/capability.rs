//! What a peer says it can do, in its reply to EHLO or LHLO.

use mail::Reply;

/// AUTH mechanisms on offer that we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthOffer {
    /// PLAIN (RFC 4616).
    pub plain: bool,
    /// LOGIN.
    pub login: bool,
    /// SCRAM-SHA-256 (RFC 7677).
    pub scram_sha_256: bool,
    /// SCRAM-SHA-256-PLUS.
    pub scram_sha_256_plus: bool,
    /// XOAUTH2.
    pub xoauth2: bool,
    /// OAUTHBEARER (RFC 7628).
    pub oauth_bearer: bool,
    /// Whether AUTH was offered at all.
    pub any: bool,
}

/// LIMITS (RFC 9422); none where the peer names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most transactions in a session.
    pub mail_max: Option<u32>,
    /// Most recipients in a transaction.
    pub rcpt_max: Option<u32>,
    /// Most recipient domains in a transaction.
    pub rcpt_domain_max: Option<u32>,
}

/// What the peer can do. Nothing, after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): offered, and the most octets a message may have; 0 names no limit.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// AUTH (RFC 4954).
    pub auth: AuthOffer,
    /// LIMITS (RFC 9422).
    pub limits: Limits,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
}

impl Capabilities {
    /// What the reply to EHLO offers. What we do not know is passed over.
    pub fn parse(reply: &Reply) -> Self {
        let mut found = Self::default();
        for line in reply.text.split('\n').skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => found.pipelining = true,
                "SIZE" => found.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "DSN" => found.dsn = true,
                "STARTTLS" => found.starttls = true,
                "AUTH" => found.auth.add(words),
                // As old servers say it for old clients.
                other if other.starts_with("AUTH=") => {
                    found.auth.add(std::iter::once(&keyword["AUTH=".len()..]).chain(words));
                }
                "CHUNKING" => found.chunking = true,
                "REQUIRETLS" => found.require_tls = true,
                "LIMITS" => words.for_each(|word| found.limits.add(word)),
                _ => {}
            }
        }
        found
    }
}

impl AuthOffer {
    fn add<'a>(&mut self, mechanisms: impl Iterator<Item = &'a str>) {
        self.any = true;
        for mechanism in mechanisms {
            match mechanism.to_ascii_uppercase().as_str() {
                "PLAIN" => self.plain = true,
                "LOGIN" => self.login = true,
                "SCRAM-SHA-256" => self.scram_sha_256 = true,
                "SCRAM-SHA-256-PLUS" => self.scram_sha_256_plus = true,
                "XOAUTH2" => self.xoauth2 = true,
                "OAUTHBEARER" => self.oauth_bearer = true,
                _ => {}
            }
        }
    }
}

impl Limits {
    /// `RCPTMAX=100`. Zero and what is no number is passed over.
    fn add(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        let value = value.parse().ok().filter(|&n: &u32| n > 0);
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mail_max = value,
            "RCPTMAX" => self.rcpt_max = value,
            "RCPTDOMAINMAX" => self.rcpt_domain_max = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_servers_say() {
        let text = "PIPELINING is.my.name\npipelining\nSIZE 10240000\nETRN\nSTARTTLS\nAUTH PLAIN login\nAUTH=PLAIN LOGIN\n\
                    ENHANCEDSTATUSCODES\n8BITMIME\nDSN\nSMTPUTF8\nCHUNKING\nLIMITS RCPTMAX=7 MAILMAX=3 X=1 RCPTDOMAINMAX=0";
        let caps = Capabilities::parse(&Reply { code: 250, enhanced: None, text: text.into() });
        assert!(caps.pipelining && caps.starttls && caps.eight_bit_mime && caps.dsn && caps.smtputf8);
        assert_eq!(caps.size, Some(10_240_000));
        assert!(caps.chunking && !caps.require_tls);
        assert!(caps.auth.plain && caps.auth.login && !caps.auth.scram_sha_256);
        assert_eq!(caps.limits, Limits { mail_max: Some(3), rcpt_max: Some(7), rcpt_domain_max: None });
    }

    #[test]
    fn the_first_line_is_a_name_not_an_offer() {
        let caps = Capabilities::parse(&Reply { code: 250, enhanced: None, text: "STARTTLS".into() });
        assert_eq!(caps, Capabilities::default());
        let caps = Capabilities::parse(&Reply { code: 250, enhanced: None, text: "x\nSIZE\nSIZE x".into() });
        assert_eq!(caps.size, Some(0));
    }
}
