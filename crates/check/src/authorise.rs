//! May this client use this sender, and reach this recipient?
//!
//! | client | MAIL | RCPT in a local domain | RCPT elsewhere |
//! |---|---|---|---|
//! | logged in | a sender that its credential and organisation may use, or the null sender | yes, verified | yes |
//! | in `relay.networks`, on an `smtp` listener | a sender that the organisation may use, or the null sender | yes, verified | yes |
//! | anyone else on an `smtp` listener | any | yes, verified | no |
//! | anyone else on a submission listener | no | no | no |
//!
//! Whoever the client is, an address that another relay could take for a route (`user%host@…`, `host!user@…`,
//! `"user@host"@…`) is refused, and `postmaster` of a local domain is taken.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use directory::{Credential, Org, OrgState, Snapshot};
use mail::{Address, EnhancedStatus, OrgId, Reply};

use crate::callout::Callout;
use crate::policy::{LocalRecipients, Mode, Policy};

/// What is known about the client.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub address: IpAddr,
    /// What the listener is for.
    pub mode: Mode,
    /// The login it proved to own.
    pub login: Option<&'a str>,
}

/// On what grounds a client sends, and whose mail it is.
#[derive(Clone, Debug)]
pub enum Access {
    /// On none: it reaches local domains only.
    Stranger,
    /// Its network is one of `relay.networks`.
    Network(Arc<Org>),
    /// It has logged in.
    Login(Arc<Credential>, Arc<Org>),
}

impl Access {
    /// Whose mail it is.
    pub fn org(&self) -> OrgId {
        match self {
            Access::Stranger => OrgId::DEFAULT,
            Access::Network(org) | Access::Login(_, org) => org.id,
        }
    }

    /// Whether it reaches more than local domains.
    pub fn may_relay(&self) -> bool {
        !matches!(self, Access::Stranger)
    }
}

/// In plain words, for `explain`.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Stranger => f.write_str("a stranger: local domains only"),
            Access::Network(org) => write!(f, "a client in relay.networks, organisation {}", org.name),
            Access::Login(credential, org) => {
                write!(f, "logged in as {}, organisation {}", credential.login, org.name)
            }
        }
    }
}

/// On what grounds a recipient is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passage {
    /// Its domain is local, and it is known or need not be.
    Local,
    /// Its domain is local; ask where its mail goes, then [`called`].
    Callout,
    /// The client may relay.
    Relay,
}

/// May this credential, whose password is right, be used from here?
///
/// # Errors
/// The refusal for AUTH. It does say that the password was right: whoever reads it knows the password.
pub fn login(credential: &Credential, address: IpAddr) -> Result<(), Reply> {
    if credential.networks.is_empty() || credential.networks.iter().any(|n| n.contains(address)) {
        return Ok(());
    }
    let text = format!(
        "the login {} may not be used from {}; the operator can allow that network (credential set --network)",
        credential.login,
        address.to_canonical()
    );
    Err(Reply::new(535, EnhancedStatus::new(5, 7, 1), text))
}

/// On what grounds does this client send?
///
/// # Errors
/// It must log in, or what it logged in with is no longer good.
pub fn access(policy: &Policy, directory: &Snapshot, client: &Client<'_>) -> Result<Access, Reply> {
    if let Some(name) = client.login {
        // The credential may have been changed since the session began.
        let credential = directory.credential(name).filter(|c| c.enabled).ok_or_else(|| {
            let text = format!("the login {name} has been removed or switched off; connect and log in again");
            Reply::new(530, EnhancedStatus::new(5, 7, 0), text)
        })?;
        login(credential, client.address).map_err(|reply| Reply { code: 550, ..reply })?;
        let org = directory.org(credential.org).ok_or_else(suspended)?;
        active(org)?;
        return Ok(Access::Login(Arc::clone(credential), Arc::clone(org)));
    }
    if client.mode == Mode::Submission {
        let text = "log in first (AUTH): this port takes mail from known senders only";
        return Err(Reply::new(530, EnhancedStatus::new(5, 7, 0), text));
    }
    let Some(network) = policy.network_of(client.address) else { return Ok(Access::Stranger) };
    let org = directory.org_named(&network.org).ok_or_else(|| {
        let text = format!(
            "relay.networks names the organisation {}, which does not exist; the operator has to add it",
            network.org
        );
        Reply::new(451, EnhancedStatus::new(4, 3, 5), text)
    })?;
    active(org)?;
    Ok(Access::Network(Arc::clone(org)))
}

/// May this client use this sender? None is the null sender, which everyone may use who may send at all: the reports
/// of mail servers carry it.
///
/// # Errors
/// The refusal for MAIL.
pub fn sender(
    policy: &Policy,
    directory: &Snapshot,
    client: &Client<'_>,
    sender: Option<&Address>,
) -> Result<Access, Reply> {
    let access = access(policy, directory, client)?;
    if let Some(sender) = sender {
        domain_is_allowed(directory, &access, sender.domain()).map_err(|why| {
            Reply::new(
                553,
                EnhancedStatus::new(5, 7, 1),
                format!("the sender {sender} is not allowed: {why}"),
            )
        })?;
    }
    Ok(access)
}

/// May this client reach this recipient?
///
/// # Errors
/// The refusal for RCPT.
pub fn recipient(
    policy: &Policy,
    directory: &Snapshot,
    client: &Client<'_>,
    recipient: &Address,
) -> Result<Passage, Reply> {
    let access = access(policy, directory, client)?;
    if recipient.has_embedded_route() {
        let text =
            "routing inside an address (%, ! or a quoted @) is not accepted; write the final address alone";
        return Err(Reply::new(553, EnhancedStatus::new(5, 1, 3), text));
    }
    if access.may_relay() {
        not_suppressed(directory, access.org(), recipient)?;
    }
    if policy.is_local(recipient.domain()) {
        // RFC 5321 section 4.5.1.
        if recipient.local().eq_ignore_ascii_case("postmaster") {
            return Ok(Passage::Local);
        }
        return match &policy.recipients {
            LocalRecipients::Any => Ok(Passage::Local),
            LocalRecipients::Callout => Ok(Passage::Callout),
            LocalRecipients::File(list) if list.contains(recipient) => Ok(Passage::Local),
            LocalRecipients::File(_) => Err(unknown(recipient, "it is not in the list of recipients")),
        };
    }
    if access.may_relay() {
        return Ok(Passage::Relay);
    }
    let text = format!(
        "relaying to {} is not allowed from {} without a login: log in (AUTH), or have the operator add the network \
         to relay.networks or the domain to relay.local_domains",
        recipient.domain(),
        client.address.to_canonical()
    );
    Err(Reply::new(550, EnhancedStatus::new(5, 7, 1), text))
}

/// Whether this organisation still writes to this address.
///
/// # Errors
/// The refusal for RCPT: it does not, since when and why, and how to change that.
pub fn not_suppressed(directory: &Snapshot, org: OrgId, recipient: &Address) -> Result<(), Reply> {
    let Some(found) = directory.suppressed(org, recipient) else { return Ok(()) };
    let org = directory.org(found.org).map_or("default", |org| &*org.name);
    let text = format!(
        "{recipient} is not written to any more since {} ({}: {}); if it exists, have the operator run: posthouse suppression \
         remove {} --org {org}",
        found.since, found.source, found.reason, found.address
    );
    Err(Reply::new(550, EnhancedStatus::new(5, 1, 1), text))
}

/// What the answer to a callout means for a recipient. While nobody can tell, those who may relay are believed, and
/// strangers come back later: so no report goes to a forged sender.
///
/// # Errors
/// The refusal for RCPT.
pub fn called(may_relay: bool, recipient: &Address, answer: &Callout) -> Result<(), Reply> {
    match answer {
        Callout::Exists => Ok(()),
        Callout::Unknown(why) => Err(unknown(recipient, why)),
        Callout::Unsure(_) if may_relay => Ok(()),
        Callout::Unsure(why) => {
            let text = format!("whether {recipient} exists cannot be told just now ({why}); try again later");
            Err(Reply::new(451, EnhancedStatus::new(4, 3, 0), text))
        }
    }
}

/// Whether mail on these grounds may carry this sender domain; otherwise why not.
pub(crate) fn domain_is_allowed(directory: &Snapshot, access: &Access, domain: &str) -> Result<(), String> {
    let (limits, org) = match access {
        Access::Stranger => return Ok(()),
        Access::Network(org) => (&[][..], org),
        Access::Login(credential, org) => (&credential.from_domains[..], org),
    };
    if !limits.is_empty() && !limits.iter().any(|p| p.matches_domain(domain)) {
        let names: Vec<String> = limits.iter().take(5).map(ToString::to_string).collect();
        return Err(format!("this login may send as {} only, not as {domain}", names.join(", ")));
    }
    if org.trusted || belongs_to(directory, org.id, domain) {
        return Ok(());
    }
    Err(format!(
        "the organisation {} may use only its own domains, and {domain} is not one of them",
        org.name
    ))
}

/// Whether the domain, or else its closest parent that is known, is one of the organisation's.
fn belongs_to(directory: &Snapshot, org: OrgId, domain: &str) -> bool {
    let mut rest = Some(domain);
    while let Some(name) = rest {
        if let Some(found) = directory.domain(name) {
            return found.org == org;
        }
        rest = name.split_once('.').map(|(_, parent)| parent);
    }
    false
}

fn active(org: &Org) -> Result<(), Reply> {
    if org.state == OrgState::Active { Ok(()) } else { Err(suspended()) }
}

fn suspended() -> Reply {
    let text = "mail from this organisation is suspended; ask the operator of this relay";
    Reply::new(550, EnhancedStatus::new(5, 7, 1), text)
}

fn unknown(recipient: &Address, why: &str) -> Reply {
    Reply::new(550, EnhancedStatus::new(5, 1, 1), format!("there is no mailbox {recipient} here: {why}"))
}

#[cfg(test)]
mod tests;
