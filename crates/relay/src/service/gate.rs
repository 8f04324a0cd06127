//! The gate: authentication with back-off, and the questions at MAIL and RCPT, answered by `check` from the snapshots.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use check::{
    Access, Backoff, Cached, Callout, CalloutCache, Client, LocalRecipients, Passage, RecipientList,
};
use deliver::CalloutAnswer;
use directory::{Authentication, Directory, Snapshot};
use mail::{Address, Clock, OrgId, Reply};
use receive::{AuthAnswer, AuthAsk, Identity, MailAsk, RcptAsk, Submission};
use smtp::sasl::ScramVerifier;

use super::{Relay, Special};
use crate::config::{Config, Recipients};

/// How long a client waits at RCPT for the destination's word.
const CALLOUT_MAX: Duration = Duration::from_secs(20);
/// How much of a message is read to find its From field.
const HEADER_MAX: usize = 512 * 1024;

/// Decides who comes in.
pub(crate) struct Gate {
    policy: ArcSwap<check::Policy>,
    backoff: Backoff,
    callouts: CalloutCache,
    clock: Clock,
}

impl Gate {
    /// A gate by the configuration.
    ///
    /// # Errors
    /// The list of recipients can't be read, in words.
    pub(crate) fn new(config: &Config, clock: Clock) -> Result<Self, String> {
        Ok(Self {
            policy: ArcSwap::from_pointee(policy(config)?),
            backoff: Backoff::default(),
            callouts: CalloutCache::default(),
            clock,
        })
    }

    /// Takes a new configuration. What was counted and remembered stays.
    ///
    /// # Errors
    /// As [`Gate::new`]; then nothing has changed.
    pub(crate) fn configure(&self, config: &Config) -> Result<(), String> {
        self.policy.store(Arc::new(policy(config)?));
        Ok(())
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<check::Policy> {
        self.policy.load_full()
    }

    /// PLAIN and LOGIN.
    pub(crate) async fn authenticate(&self, directory: &Directory, ask: AuthAsk, peer: IpAddr) -> AuthAnswer {
        let now = self.clock.mono();
        if let Err(wait) = self.backoff.ask(&ask.login, peer, now) {
            return AuthAnswer::TryLater(wait);
        }
        let answer = directory.authenticate(&ask.login, &ask.password.0).await;
        // The check may have waited for its turn.
        let now = self.clock.mono();
        match answer {
            Authentication::Ok(credential) => {
                self.backoff.succeeded(&ask.login, peer, now);
                admit_login(&credential, peer)
            }
            Authentication::Failed => {
                self.backoff.failed(&ask.login, peer, Some(&ask.password.0), now);
                AuthAnswer::Failed
            }
            Authentication::Disabled(why) => {
                self.backoff.succeeded(&ask.login, peer, now);
                AuthAnswer::Refused(Reply::new(535, mail::EnhancedStatus::new(5, 7, 1), why))
            }
            Authentication::Busy => AuthAnswer::Unavailable,
        }
    }

    /// What SCRAM needs; none also for who has to wait, as the exchange then ends in failure.
    pub(crate) fn scram(&self, directory: &Directory, login: &str, peer: IpAddr) -> Option<ScramVerifier> {
        self.backoff.ask(login, peer, self.clock.mono()).ok()?;
        let offer = directory.scram(login);
        let found = offer.verifier;
        Some(ScramVerifier {
            salt: found.salt,
            iterations: found.iterations,
            stored_key: found.stored_key,
            server_key: found.server_key,
        })
    }

    /// The end of a SCRAM exchange.
    pub(crate) fn scram_done(
        &self,
        directory: &Directory,
        login: &str,
        peer: IpAddr,
        proven: bool,
    ) -> AuthAnswer {
        let now = self.clock.mono();
        let credential = directory.scram(login).credential.filter(|_| proven);
        let Some(credential) = credential else {
            self.backoff.failed(login, peer, None, now);
            return AuthAnswer::Failed;
        };
        self.backoff.succeeded(login, peer, now);
        admit_login(&credential, peer)
    }

    /// May this sender be used, and whose mail is it then?
    pub(crate) fn mail(&self, directory: &Directory, ask: MailAsk<'_>) -> Result<OrgId, Reply> {
        let client = client(ask.client);
        let sender = ask.reverse_path.as_ref();
        check::authorise::sender(&self.policy(), &directory.snapshot(), &client, sender)
            .map(|access| access.org())
    }

    /// May this recipient be reached? Asks where its mail goes, if the policy says so.
    pub(crate) async fn rcpt(&self, relay: &Relay, ask: RcptAsk<'_>) -> Result<(), Reply> {
        let snapshot = relay.directory.snapshot();
        let (client, recipient) = (client(ask.client), &ask.recipient.address);
        let policy = self.policy();
        let forwarding = relay.forwarding.load();
        let special = if forwarding.is_empty() || recipient.has_embedded_route() {
            None
        } else {
            let org = check::authorise::access(&policy, &snapshot, &client)?.org();
            forwarding.special(org, recipient, self.clock.now())?
        };
        match special {
            // Its signature is its permit.
            Some(Special::Signed) => return Ok(()),
            // An alias is known, whatever the list or the destination say of it; who may write to its domain is as always.
            Some(Special::Alias) if policy.is_local(recipient.domain()) => return Ok(()),
            _ => {}
        }
        match check::authorise::recipient(&self.policy(), &snapshot, &client, recipient)? {
            Passage::Local | Passage::Relay => Ok(()),
            Passage::Callout => {
                let access = check::authorise::access(&self.policy(), &snapshot, &client)?;
                // Boxed: a whole delivery is rare here, and would else make the task of every session as large as one.
                let asked = self.call_out(relay, &snapshot, ask.reverse_path.as_ref(), recipient);
                let answer = Box::pin(asked).await;
                check::authorise::called(access.may_relay(), recipient, &answer)
            }
        }
    }

    async fn call_out(
        &self,
        relay: &Relay,
        snapshot: &Snapshot,
        sender: Option<&Address>,
        recipient: &Address,
    ) -> Callout {
        if let Cached::Known(answer) = self.callouts.get(recipient, self.clock.mono()) {
            return answer;
        }
        let (destination, _) = crate::plan::way(snapshot, &relay.forwarding.load(), sender, recipient);
        let said = match deliver::callout(&relay.engine, &destination, recipient, CALLOUT_MAX).await {
            CalloutAnswer::Accepted => Callout::Exists,
            CalloutAnswer::Refused(outcome) => Callout::Unknown(outcome.text),
            CalloutAnswer::Unknown(outcome) => Callout::Unsure(outcome.text),
        };
        self.callouts.put(recipient, said, self.clock.mono())
    }

    /// At the end of the content: who may use only some senders may not write another one into From either.
    pub(crate) async fn author(&self, directory: &Directory, submission: &Submission) -> Result<(), Reply> {
        let origin = &submission.message.origin;
        let Some(address) = origin.client else { return Ok(()) };
        let mode = match origin.protocol {
            mail::Protocol::Submission => check::Mode::Submission,
            mail::Protocol::Smtp => check::Mode::Smtp,
            _ => return Ok(()),
        };
        let client = Client { address, mode, login: origin.credential.as_deref() };
        let snapshot = directory.snapshot();
        let access = check::authorise::access(&self.policy(), &snapshot, &client)?;
        if !is_limited(&access) {
            return Ok(());
        }
        let read = submission.content.content().read_all_up_to(HEADER_MAX).await;
        let header = read.map_err(|error| crate::replies::unreadable(&error))?;
        let from: Vec<String> = mail::headers(&header).filter(|h| h.is("From")).map(|h| h.text()).collect();
        check::author::check(&snapshot, &access, &from)
    }
}

/// Whether From has to be looked at: for most senders it need not, and the content is not read again.
fn is_limited(access: &Access) -> bool {
    match access {
        Access::Stranger => false,
        Access::Network(org) => !org.trusted,
        Access::Login(credential, org) => !org.trusted || !credential.from_domains.is_empty(),
    }
}

fn admit_login(credential: &directory::Credential, peer: IpAddr) -> AuthAnswer {
    match check::authorise::login(credential, peer) {
        Ok(()) => AuthAnswer::Ok(Identity {
            org: credential.org,
            login: Arc::clone(&credential.login),
            stream: credential.stream,
        }),
        Err(reply) => AuthAnswer::Refused(reply),
    }
}

fn client(client: &receive::Client) -> Client<'_> {
    Client {
        address: client.peer.ip(),
        mode: if client.listener.mode.is_submission() { check::Mode::Submission } else { check::Mode::Smtp },
        login: client.identity.as_ref().map(|identity| &*identity.login),
    }
}

fn policy(config: &Config) -> Result<check::Policy, String> {
    let network = |n: &crate::config::RelayNetwork| check::RelayNetwork {
        network: n.network,
        org: n.org.as_deref().unwrap_or("default").into(),
    };
    let local = |domain: &String| {
        mail::domain_to_ascii(domain)
            .map(String::into_boxed_str)
            .ok_or_else(|| format!("relay.local_domains: {domain:?} is no domain"))
    };
    let recipients = match &config.relay.recipients {
        Recipients::Callout => LocalRecipients::Callout,
        Recipients::Any => LocalRecipients::Any,
        Recipients::File(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("relay.recipients: {} cannot be read: {error}", path.display()))?;
            let list = RecipientList::parse(&text)
                .map_err(|error| format!("relay.recipients: {}, {error}", path.display()))?;
            LocalRecipients::File(Arc::new(list))
        }
    };
    Ok(check::Policy {
        networks: config.relay.networks.iter().map(network).collect(),
        local_domains: config.relay.local_domains.iter().map(local).collect::<Result<_, _>>()?,
        recipients,
    })
}
