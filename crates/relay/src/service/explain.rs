//! What would happen to a message, by the functions that live mail goes through. Sends nothing.

use std::net::{IpAddr, Ipv4Addr};

use api::types::{ExplainRequest, ExplainedRecipient, Explanation, MessageFacts, Verdict};
use api::{Kind, Problem};
use check::{Client, Mode, Passage};
use directory::Snapshot;
use mail::{Address, Destination, Reply};

use super::Relay;
use super::explain_outgoing::Mail;
use crate::config::{self, Config};

impl Relay {
    pub(super) async fn explain(&self, ask: ExplainRequest) -> Result<Explanation, Problem> {
        let (config, snapshot) = (self.config.load_full(), self.directory.snapshot());
        let sender = match ask.from.trim_matches(|c| c == '<' || c == '>') {
            "" => None,
            text => Some(address(text)?),
        };
        let mode = mode(&config, &ask)?;
        let who = ask.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let client = Client { address: who, mode, login: ask.credential.as_deref() };
        let policy = self.gate.policy();
        let access = check::authorise::sender(&policy, &snapshot, &client, sender.as_ref());
        let described = match check::authorise::access(&policy, &snapshot, &client) {
            Ok(access) => access.to_string(),
            Err(_) => "a stranger".into(),
        };
        let org = access.as_ref().map_or(mail::OrgId::DEFAULT, |access| access.org());
        let login = ask.credential.as_deref().and_then(|login| snapshot.credential(login));
        let stream = login.map(|credential| credential.stream).unwrap_or_default();
        let mail = Mail {
            snapshot: &snapshot,
            org,
            stream,
            sender: sender.as_ref(),
            login: ask.credential.as_deref(),
        };
        let mut recipients = Vec::new();
        for to in &ask.to {
            let to = address(to)?;
            let passage = check::authorise::recipient(&policy, &snapshot, &client, &to);
            recipients.push(self.explain_recipient(&mail, &to, passage).await);
        }
        let why = format!("{who} is {described}");
        Ok(Explanation {
            client: why.clone(),
            sender: verdict(access.map(|_| ("Sender OK", why))),
            content: ask.message.as_ref().map(|facts| content(&config, facts)),
            recipients,
        })
    }

    async fn explain_recipient(
        &self,
        mail: &Mail<'_>,
        to: &Address,
        passage: Result<Passage, Reply>,
    ) -> ExplainedRecipient {
        let is_refused = passage.is_err();
        let because = passage.map(|passage| {
            let why = match passage {
                Passage::Local => "its domain is in relay.local_domains",
                Passage::Callout => {
                    "its domain is in relay.local_domains, if the destination knows the recipient"
                }
                Passage::Relay => "this client may relay",
            };
            ("Recipient OK", why.to_owned())
        });
        let verdict = verdict(because);
        if is_refused {
            let recipient = to.to_string();
            return ExplainedRecipient { recipient, verdict, ..ExplainedRecipient::default() };
        }
        let becomes = self.becomes(mail, to);
        // Of several addresses that an alias stands for, the way of the first is shown: the others can be asked for.
        let towards = becomes.first().cloned().unwrap_or_else(|| to.clone());
        let (destination, route) =
            crate::plan::way(mail.snapshot, &self.forwarding.load(), mail.sender, &towards);
        let route = route.map_or_else(
            || "no route matches: by MX".to_owned(),
            |route| {
                let place = match route.source {
                    directory::Source::Config => "from config",
                    directory::Source::Directory => "from directory",
                };
                format!("route {} ({place}) to {}", route.id, route.to)
            },
        );
        let next_hops = self.next_hops(mail.snapshot, &destination).await;
        ExplainedRecipient {
            recipient: to.to_string(),
            verdict,
            route: Some(route),
            destination: Some(destination.to_string()),
            next_hops,
            becomes: becomes.iter().map(ToString::to_string).collect(),
            ..self.outgoing(mail, &destination).await
        }
    }

    /// The hosts that would be tried, in order, or why there are none.
    async fn next_hops(&self, snapshot: &Snapshot, destination: &Destination) -> Vec<String> {
        match destination {
            Destination::Mx(domain) => match self.engine.settings().resolver.mx(domain).await {
                Ok(answer) => {
                    answer.hosts.iter().map(|host| format!("{} {}", host.preference, host.name)).collect()
                }
                Err(error) => vec![error.to_string()],
            },
            Destination::SmartHost(name) => match snapshot.smarthost(name) {
                Some(host) => host.hosts.iter().map(ToString::to_string).collect(),
                None => vec![format!("there is no smart host {name}")],
            },
            Destination::Smtp(at) | Destination::Lmtp(at) => vec![at.to_string()],
            Destination::LmtpUnix(path) | Destination::Maildir(path) => vec![path.to_string()],
            Destination::Sandbox => vec!["caught here".into()],
            Destination::Discard => vec!["thrown away here".into()],
            Destination::Bounces => vec!["read here".into()],
        }
    }
}

fn address(text: &str) -> Result<Address, Problem> {
    Address::parse(text).map_err(|error| Problem::new(Kind::Invalid, format!("{text:?}: {error}")))
}

/// What the listener is for that the client comes to.
fn mode(config: &Config, ask: &ExplainRequest) -> Result<Mode, Problem> {
    let Some(name) = &ask.listener else {
        let has_smtp = config.listener.iter().any(|listener| listener.mode == config::Mode::Smtp);
        return Ok(if ask.credential.is_none() && has_smtp { Mode::Smtp } else { Mode::Submission });
    };
    let found = config.listener.iter().find(|listener| listener.name == *name);
    let listener =
        found.ok_or_else(|| Problem::new(Kind::Invalid, format!("there is no listener {name:?}")))?;
    Ok(if listener.mode == config::Mode::Smtp { Mode::Smtp } else { Mode::Submission })
}

fn verdict(result: Result<(&str, String), Reply>) -> Verdict {
    match result {
        Ok((reply, why)) => Verdict { accepted: true, reply: format!("250 {reply}"), why },
        Err(reply) => Verdict { accepted: false, reply: reply.to_string(), why: reply.text },
    }
}

/// What the session itself would say to the content.
fn content(config: &Config, facts: &MessageFacts) -> Verdict {
    let limits = &config.limits;
    let no = |reply: &str, why: String| Verdict { accepted: false, reply: reply.into(), why };
    let max = config.queue.max_message_size;
    if facts.size > max {
        return no("552 5.3.4", format!("it has {} octets, queue.max_message_size is {max}", facts.size));
    }
    if facts.received > limits.hops {
        return no(
            "554 5.4.6",
            format!("it has {} Received fields, limits.hops is {}", facts.received, limits.hops),
        );
    }
    if facts.bare_newlines {
        return no("550 5.6.0", "it has lines that end in a bare CR or LF; see bare_newline".into());
    }
    Verdict { accepted: true, reply: "250 2.0.0".into(), why: "within all limits".into() }
}
