//! Where a domain wants TLS reports sent (RFC 8460 section 3).

use crate::sts::policy::fields;
use crate::{ResolveError, Resolver};

/// Addresses of one domain that are used.
const ADDRESSES_MAX: usize = 10;

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReportAddress {
    /// An e-mail address.
    Mail(String),
    /// An `https:` URL to POST it to.
    Https(String),
}

/// Finds the addresses in a domain's `_smtp._tls` TXT records; none unless exactly one record is right.
pub fn report_addresses(records: &[String]) -> Vec<ReportAddress> {
    let mut ours = records.iter().filter_map(|record| fields(record, "TLSRPTv1"));
    let (Some(fields), None) = (ours.next(), ours.next()) else { return vec![] };
    let Some((_, rua)) = fields.iter().find(|(key, _)| *key == "rua") else { return vec![] };
    rua.split(',').filter_map(|uri| address(uri.trim())).take(ADDRESSES_MAX).collect()
}

fn address(uri: &str) -> Option<ReportAddress> {
    let (scheme, rest) = uri.split_once(':')?;
    if rest.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        return None;
    }
    match scheme.to_ascii_lowercase().as_str() {
        "mailto" => {
            let mailbox = decoded(rest.split('?').next()?)?;
            mail::Address::parse(&mailbox).ok().map(|address| ReportAddress::Mail(address.to_string()))
        }
        "https" if rest.starts_with("//") && rest.len() > 2 => Some(ReportAddress::Https(uri.to_owned())),
        _ => None,
    }
}

/// Takes `%2C` and the like out; none when what comes out is not text.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            octets.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).ok().filter(|text| !text.chars().any(char::is_control))
}

impl Resolver {
    /// Where `domain` wants TLS reports sent; empty where it wants none.
    ///
    /// # Errors
    /// [`ResolveError`] that [is temporary](ResolveError::is_temporary): the DNS gives no answer.
    pub async fn tls_report_addresses(&self, domain: &str) -> Result<Vec<ReportAddress>, ResolveError> {
        match self.txt(&format!("_smtp._tls.{domain}")).await {
            Ok(records) => Ok(report_addresses(&records)),
            Err(error) if error.is_temporary() => Err(error),
            Err(_) => Ok(vec![]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found() {
        let found = |record: &str| report_addresses(&[record.to_owned(), "v=spf1 -all".to_owned()]);
        let mail = |address: &str| ReportAddress::Mail(address.to_owned());
        assert_eq!(found("v=TLSRPTv1; rua=mailto:tls@example.com"), [mail("tls@example.com")]);
        assert_eq!(
            found(
                "v=TLSRPTv1;rua=mailto:tls%2Brpt@example.com?subject=x , HTTPS://example.com/r, ftp://x, mailto:none"
            ),
            [mail("tls+rpt@example.com"), ReportAddress::Https("HTTPS://example.com/r".into())]
        );
        for none in [
            "v=TLSRPTv1",
            "v=TLSRPTv1; rua=",
            "v=TLSRPTv2; rua=mailto:a@example.com",
            "v=TLSRPTv1; rua=mailto:a@example.com%0d%0aBcc:b@example.com",
            "v=TLSRPTv1; rua=mailto:%zz@example.com",
            "v=TLSRPTv1; rua=https:",
        ] {
            assert_eq!(found(none), [], "{none}");
        }
        let twice = [
            "v=TLSRPTv1; rua=mailto:a@example.com".to_owned(),
            "v=TLSRPTv1; rua=mailto:b@example.com".to_owned(),
        ];
        assert_eq!(report_addresses(&twice), []);
    }
}
