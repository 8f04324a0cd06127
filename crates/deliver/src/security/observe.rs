//! What became of a connection, in the words of TLS reports (RFC 8460 section 4.3).

use net::{CertificateFault, ClientTls, NetError, Stream, Trust};

use super::requirement::{Requirement, Session, Tested};
use super::results::{FailureSeen, PolicyType, ResultType};
use super::rules::TlsRules;

/// What became of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Observed<'a> {
    /// There is TLS, as required.
    Protected(&'a Stream),
    /// STARTTLS is not offered or was refused, whether or not the mail went in the clear.
    NoStarttls,
    /// The handshake failed, or the certificate was not the right one.
    Failed(&'a NetError),
    /// There was no connection: the host is [barred](Requirement::barred).
    Barred,
}

impl Requirement {
    /// Counts what became of a connection that was made for it, or that could not be made. To be called once for each.
    pub(crate) fn observed(
        &self,
        observed: Observed<'_>,
        session: &Session<'_>,
        tls: &ClientTls,
        rules: &TlsRules,
    ) {
        let Some(results) = &rules.results else { return };
        let seen = |result, reason: Option<String>| FailureSeen {
            result,
            sending_ip: session.sending_ip,
            receiving_mx: Some(session.host.to_owned()),
            receiving_helo: session.helo.map(str::to_owned),
            receiving_ip: session.receiving_ip,
            reason,
        };
        if let Some((policy, result, reason)) = &self.report.before {
            results.record(policy.clone(), Some(seen(*result, Some(reason.clone()))));
        }
        let Some(policy) = &self.report.policy else { return };
        let failure = match observed {
            Observed::Barred if self.report.before.is_some() => return,
            Observed::Barred => Some((
                ResultType::ValidationFailure,
                self.barred.as_ref().map(|outcome| outcome.text.clone()),
            )),
            Observed::NoStarttls => Some((ResultType::StarttlsNotSupported, None)),
            Observed::Failed(error) => Some((kind(error, policy.kind), Some(error.to_string()))),
            Observed::Protected(stream) => self.failed_test(stream, session, tls),
        };
        results.record(policy.clone(), failure.map(|(result, reason)| seen(result, reason)));
    }

    /// What a policy in testing mode would have found wrong with a connection that was used all the same.
    fn failed_test(
        &self,
        stream: &Stream,
        session: &Session<'_>,
        tls: &ClientTls,
    ) -> Option<(ResultType, Option<String>)> {
        match self.report.tested? {
            Tested::NotNamed => {
                let reason = format!("{} is not in the policy (mode: testing)", session.host);
                Some((ResultType::ValidationFailure, Some(reason)))
            }
            Tested::Verify => {
                let wrong = tls.would_satisfy(stream, session.host, &Trust::Verified).err()?;
                Some((kind(&wrong, PolicyType::Sts), Some(wrong.to_string())))
            }
        }
    }
}

fn kind(error: &NetError, policy: PolicyType) -> ResultType {
    let NetError::Untrusted { fault, .. } = error else { return ResultType::ValidationFailure };
    match fault {
        CertificateFault::Name => ResultType::CertificateHostMismatch,
        CertificateFault::Expired => ResultType::CertificateExpired,
        CertificateFault::Issuer => ResultType::CertificateNotTrusted,
        CertificateFault::Tlsa => ResultType::TlsaInvalid,
        CertificateFault::Other if policy == PolicyType::Tlsa => ResultType::TlsaInvalid,
        CertificateFault::Other => ResultType::ValidationFailure,
    }
}
