//! Asking the next hop whether it knows a recipient, before mail for it is accepted.

use std::sync::Arc;
use std::time::Duration;

use mail::{Address, Destination, Disposition, EnhancedStatus, Outcome, Recipient};
use smtp::client::Transcript;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::maildir;
use crate::target::Wanted;
use crate::way::Way;

/// What the next hop says about a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalloutAnswer {
    /// It would take mail for it.
    Accepted,
    /// It never would; its words are in the outcome.
    Refused(Outcome),
    /// It gave no answer, or none for good.
    Unknown(Outcome),
}

/// Asks where mail for `recipient` goes whether it would be taken, in at most `limit`; sends none. What is written or
/// thrown away here is taken, as long as the name can be one of a mailbox.
pub async fn callout(
    engine: &Arc<Engine>,
    destination: &Destination,
    recipient: &Address,
    limit: Duration,
) -> CalloutAnswer {
    match destination {
        Destination::Discard | Destination::Sandbox | Destination::Bounces => return CalloutAnswer::Accepted,
        Destination::Maildir(template) => {
            return match maildir::expand(template, recipient) {
                Ok(_) => CalloutAnswer::Accepted,
                Err(outcome) => CalloutAnswer::Refused(outcome),
            };
        }
        _ => {}
    }
    let outcome = match timeout(limit, ask(engine, destination, recipient)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let text = format!("the next hop gave no answer about {recipient} in {} s", limit.as_secs_f32());
            Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 4, 1), text)
        }
    };
    match outcome.disposition {
        Disposition::Delivered => CalloutAnswer::Accepted,
        Disposition::Refused => CalloutAnswer::Refused(outcome),
        Disposition::Deferred => CalloutAnswer::Unknown(outcome),
    }
}

async fn ask(engine: &Arc<Engine>, destination: &Destination, recipient: &Address) -> Outcome {
    let (settings, clock) = (engine.settings(), engine.clock());
    let source = mail::default_source();
    let login = match destination {
        Destination::SmartHost(name) => {
            settings.smarthosts.get(name).and_then(|host| host.login_for(None, recipient))
        }
        _ => None,
    };
    let wanted = Wanted { engine, settings: &settings, source: &source, destination, message: None, login };
    let mut record = Transcript::new(settings.transcript_max);
    let mut connection = match Way::new(clock.mono()).connect(&wanted, &mut record, &mut None).await {
        Ok(connection) => connection,
        Err(outcome) => return outcome,
    };
    let answer = connection.ask(&Recipient::new(recipient.clone()), clock).await;
    connection.quit().await;
    answer.unwrap_or_else(|| {
        Outcome::own(Disposition::Deferred, EnhancedStatus::new(4, 5, 0), "the next hop gave no answer")
    })
}
