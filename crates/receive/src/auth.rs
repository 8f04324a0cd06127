//! Logins: asks the backend, remembers who it is, logs what failed.

use std::net::IpAddr;
use std::sync::LazyLock;

use smtp::sasl::{Password, ScramVerifier};
use smtp::server::AuthVerdict;
use tracing::{debug, info};

use crate::backend::{AuthAnswer, AuthAsk, Backend, Client, Identity};
use crate::meters::Meters;

/// Makes decoys for unknown logins. One for the whole process: two listeners that gave different decoys for the same
/// login would show that it is unknown.
static DECOYS: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut secret = [0; 32];
    // Without random bytes TLS does not work either; a constant secret then tells no more than that.
    let _ = aws_lc_rs::rand::fill(&mut secret);
    secret
});

/// Checks a password.
pub(crate) async fn password<B: Backend>(
    backend: &B,
    meters: &Meters,
    client: &mut Client,
    login: String,
    password: Password,
) -> AuthVerdict {
    let name = login.clone();
    let answer = backend.authenticate(AuthAsk { login, password }, client.peer.ip()).await;
    verdict(answer, meters, client, &name)
}

/// The verifier for a SCRAM exchange, real or not.
pub(crate) async fn verifier<B: Backend>(backend: &B, client: IpAddr, login: &str) -> ScramVerifier {
    let known = backend.scram(login, client).await;
    known.unwrap_or_else(|| ScramVerifier::decoy(login, &*DECOYS))
}

/// A SCRAM exchange is over.
pub(crate) async fn scram<B: Backend>(
    backend: &B,
    meters: &Meters,
    client: &mut Client,
    login: &str,
    proven: bool,
) -> AuthVerdict {
    let answer = match backend.scram_done(login, client.peer.ip(), proven).await {
        AuthAnswer::Ok(_) if !proven => AuthAnswer::Failed,
        answer => answer,
    };
    verdict(answer, meters, client, login)
}

fn verdict(answer: AuthAnswer, meters: &Meters, client: &mut Client, login: &str) -> AuthVerdict {
    let (listener, peer) = (&client.listener.name, client.peer);
    match answer {
        AuthAnswer::Ok(identity) => {
            debug!(%listener, client = %peer, login = ?identity.login, "authenticated");
            meters.logins.increment(1);
            client.identity = Some(Identity { ..identity });
            AuthVerdict::Ok
        }
        AuthAnswer::Failed => {
            meters.logins_failed.increment(1);
            info!(%listener, client = %peer, ?login, "login failed");
            AuthVerdict::Failed
        }
        AuthAnswer::TryLater(wait) => {
            meters.logins_failed.increment(1);
            info!(%listener, client = %peer, ?login, wait_s = wait.as_secs(), "login put off: too many failures");
            AuthVerdict::TryLater(wait)
        }
        AuthAnswer::Unavailable => AuthVerdict::Unavailable,
        AuthAnswer::Refused(reply) => {
            meters.logins_failed.increment(1);
            info!(%listener, client = %peer, ?login, reply = ?reply.to_string(), "login refused");
            AuthVerdict::Refused(reply)
        }
    }
}
