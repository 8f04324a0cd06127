//! One order, from the account to the certificate.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::ClientConfig;
use tracing::{info, warn};

use super::responder::Responder;
use super::{AcmeConfig, Challenge, write};
use crate::tls::{VERSIONS, provider};
use crate::{ClientTls, NetError};

/// Validation and issuing take seconds, or a minute on a bad day.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));
/// The server has forgotten our account (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Orders a certificate; gives chain and key, in PEM.
pub(super) async fn order(
    config: &AcmeConfig,
    responder: &Responder,
    client: &ClientTls,
) -> Result<String, NetError> {
    let mut order = match new_order(config, client).await {
        Err(error) if knows_no_account(&error) => {
            warn!("the ACME server does not know our account any more; registering anew");
            let path = account_path(config);
            std::fs::remove_file(&path).map_err(|e| NetError::disk(&path, e))?;
            new_order(config, client).await?
        }
        other => other?,
    };
    let answered = answer(&mut order, config.challenge, responder).await;
    let issued = match answered {
        Ok(()) => finish(&mut order, &config.domains).await,
        Err(error) => Err(error),
    };
    responder.clear();
    issued
}

async fn new_order(config: &AcmeConfig, client: &ClientTls) -> Result<Order, NetError> {
    let account = account(config, client).await?;
    let names: Vec<_> = config.domains.iter().cloned().map(Identifier::Dns).collect();
    account.new_order(&NewOrder::new(&names)).await.map_err(|e| failed("the order was refused", e))
}

fn knows_no_account(error: &NetError) -> bool {
    let NetError::Acme { source: Some(source), .. } = error else { return false };
    matches!(source.downcast_ref(), Some(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT))
}

/// Publishes the answer to each challenge and tells the server to look.
async fn answer(order: &mut Order, challenge: Challenge, responder: &Responder) -> Result<(), NetError> {
    let kind = match challenge {
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Http01 => ChallengeType::Http01,
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|e| failed("the authorisation cannot be read", e))?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            other => return Err(plain(format!("an authorisation is {other:?} before it was tried"))),
        }
        let Some(mut handle) = authorization.challenge(kind.clone()) else {
            return Err(plain(format!(
                "the server does not offer {}; set acme.challenge to another",
                challenge.as_str()
            )));
        };
        let name = handle.identifier().to_string();
        let proof = handle.key_authorization();
        responder.publish(&name, &handle.token, proof.as_str(), proof.digest().as_ref())?;
        handle.set_ready().await.map_err(|e| failed("the challenge was refused", e))?;
    }
    Ok(())
}

/// Waits for the verdict, sends the key's request, fetches the certificate.
async fn finish(order: &mut Order, domains: &[String]) -> Result<String, NetError> {
    let status = match order.poll_ready(&POLL).await {
        Ok(status) => status,
        Err(error) => return Err(failed("the order was not validated", error)),
    };
    if status != OrderStatus::Ready {
        return Err(plain(format!("the server could not validate: {}", why_invalid(order).await)));
    }
    let bug = |e: rcgen::Error| NetError::Bug(format!("cannot make a certificate request: {e}"));
    let key = KeyPair::generate().map_err(bug)?;
    let mut parameters = CertificateParams::new(domains.to_vec()).map_err(bug)?;
    parameters.distinguished_name = DistinguishedName::new();
    let request = parameters.serialize_request(&key).map_err(bug)?;
    order.finalize_csr(request.der()).await.map_err(|e| failed("the certificate request was refused", e))?;
    let chain = order.poll_certificate(&POLL).await.map_err(|e| failed("no certificate came", e))?;
    Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem()))
}

/// What the server says about each name that it could not validate.
async fn why_invalid(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        for problem in authorization.challenges.iter().filter_map(|c| c.error.as_ref()) {
            reasons.push(format!("{name}: {}", problem.detail.as_deref().unwrap_or("no reason given")));
        }
    }
    if reasons.is_empty() { "no reason given".to_owned() } else { reasons.join("; ") }
}

/// One account for each directory, so that a change from staging to production and back finds both again.
fn account_path(config: &AcmeConfig) -> PathBuf {
    let hash = digest(&SHA256, config.directory.as_bytes());
    let short: String = hash.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect();
    config.data_dir.join("tls").join("acme").join(format!("account-{short}.json"))
}

/// The account on disk, or a new one, which is stored before it is used.
async fn account(config: &AcmeConfig, client: &ClientTls) -> Result<Account, NetError> {
    let path = account_path(config);
    let builder = builder(client)?;
    match std::fs::read(&path) {
        Ok(json) => match serde_json::from_slice::<AccountCredentials>(&json) {
            Ok(credentials) => {
                let account = builder.from_credentials(credentials).await;
                return account.map_err(|e| failed("the directory cannot be read", e));
            }
            Err(error) => warn!(path = %path.display(), %error, "the stored ACME account is damaged"),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(NetError::disk(&path, e)),
    }
    let contact = config.contact.as_ref().map(|c| format!("mailto:{}", c.trim_start_matches("mailto:")));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let created = builder.create(&new, config.directory.clone(), None).await;
    let (account, credentials) = created.map_err(|e| failed("no account could be made", e))?;
    let json = serde_json::to_vec(&credentials).map_err(|e| NetError::Bug(e.to_string()))?;
    write(path, json).await?;
    info!(directory = %config.directory, account = account.id(), "registered with the ACME server");
    Ok(account)
}

/// An HTTPS client that trusts whom the relay trusts.
fn builder(client: &ClientTls) -> Result<AccountBuilder, NetError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|e| NetError::Bug(e.to_string()))?
        .with_root_certificates(client.roots())
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
    Ok(Account::builder_with_http(Box::new(Client::builder(TokioExecutor::new()).build(connector))))
}

fn plain(what: String) -> NetError {
    NetError::Acme { what, source: None }
}

/// With everything the error chain says: the first words alone ("client error (Connect)") help nobody.
fn failed(what: &str, error: Error) -> NetError {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = error.source();
    }
    NetError::Acme { what: text, source: Some(Box::new(error)) }
}
