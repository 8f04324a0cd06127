//! `posthouse queue`.

use api::types::{
    Delivery, DeliveryDetail, DeliveryRecipient, QueueAction, QueueChange, QueueChanged, QueueQuery,
};
use axum::body::Body;
use clap::{Args, Subcommand};
use http_body_util::BodyExt;
use hyper::Method;

use super::accounts::at;
use super::client::Client;
use super::context::{CliError, Context};
use super::output::{self, Rows, clean, size};
use crate::config::values::parse_duration;

/// Which deliveries; all that is given must match.
#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// Messages or deliveries by id.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// A message or delivery by id (again for more).
    #[arg(long = "id", value_name = "ID")]
    id: Vec<String>,
    /// Whose mail.
    #[arg(long)]
    org: Option<String>,
    /// A recipient's domain.
    #[arg(long)]
    domain: Option<String>,
    /// What kind of mail: transactional or bulk.
    #[arg(long)]
    stream: Option<String>,
    /// A provider such as gmail, or a site as `queue sites` shows it.
    #[arg(long)]
    site: Option<String>,
    /// A source that it may leave by.
    #[arg(long)]
    source: Option<String>,
    /// Where it goes, as `queue list` shows it.
    #[arg(long)]
    destination: Option<String>,
    /// The envelope's sender; "<>" is the null sender, "*" any run of characters.
    #[arg(long)]
    from: Option<String>,
    /// A recipient.
    #[arg(long)]
    to: Option<String>,
    /// active, waiting, held, sandboxed or quarantined; several with commas.
    #[arg(long)]
    state: Option<String>,
    /// Words in the reason it is held for, or in the last reply.
    #[arg(long)]
    reason: Option<String>,
    /// Accepted longer ago than this, such as 2h.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<std::time::Duration>,
}

impl Filter {
    fn query(self) -> QueueQuery {
        let ids: Vec<String> = self.ids.into_iter().chain(self.id).collect();
        QueueQuery {
            org: self.org,
            domain: self.domain,
            stream: self.stream,
            site: self.site,
            source: self.source,
            destination: self.destination,
            from: self.from,
            to: self.to,
            state: self.state,
            reason: self.reason,
            older_than_s: self.older_than.map(|d| d.as_secs()),
            id: (!ids.is_empty()).then(|| ids.join(",")),
            after: None,
            limit: None,
        }
    }
}

/// A change of many deliveries.
#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    filter: Filter,
    /// Without a filter: all deliveries.
    #[arg(long)]
    all: bool,
    /// Only tell how many it would be.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List deliveries, oldest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many; 0 is all.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show a message in the queue.
    Show {
        /// The message, or one of its deliveries.
        id: String,
        /// Print the message itself, byte for byte.
        #[arg(long)]
        raw: bool,
    },
    /// Hold deliveries: nothing happens until they are released.
    Hold {
        #[command(flatten)]
        change: ChangeArgs,
        /// Why, for those who look at it later.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Let held deliveries go on, at once.
    Release {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Try deliveries at once.
    Retry {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Send deliveries another way, at once. Also sends what the sandbox caught.
    Reroute {
        #[command(flatten)]
        change: ChangeArgs,
        /// Where to: smarthost:NAME, smtp://host:port, …, or mx: the mail exchangers of the recipients' domain.
        #[arg(long, value_name = "DESTINATION")]
        via: String,
    },
    /// Take deliveries out of the queue; nobody is told but the record.
    Remove {
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Stop deliveries for a while, those that come later too. Mail is still accepted.
    Suspend(super::stops::SuspendArgs),
    /// Lift suspensions.
    Resume(super::stops::ResumeArgs),
    /// List what is suspended.
    Suspensions,
    /// Show the paths from sources to sites: connections, window, rate, health, warm-up.
    Sites(super::stops::SitesArgs),
}

impl QueueCommand {
    /// Lists everything.
    pub(super) fn all() -> Self {
        Self::List { filter: Filter::default(), limit: 0 }
    }
}

pub(super) fn run(context: &Context, command: QueueCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_data(async |client| match command {
        QueueCommand::List { filter, limit } => list(&client, json, filter.query(), limit).await,
        QueueCommand::Show { id, raw: true } => raw(&client, &id).await,
        QueueCommand::Show { id, raw: false } => {
            let detail: DeliveryDetail = client.get(&at("queue", &id)).await?;
            if json {
                output::json(&detail)
            } else {
                show(&detail)
            }
            Ok(())
        }
        QueueCommand::Hold { change, why } => {
            self::change(&client, json, QueueAction::Hold, change, |ask| ask.reason = why).await
        }
        QueueCommand::Release { change } => {
            self::change(&client, json, QueueAction::Release, change, |_| {}).await
        }
        QueueCommand::Retry { change } => {
            self::change(&client, json, QueueAction::Retry, change, |_| {}).await
        }
        QueueCommand::Reroute { change, via } => {
            self::change(&client, json, QueueAction::Reroute, change, |ask| ask.to = Some(via)).await
        }
        QueueCommand::Remove { change } => {
            self::change(&client, json, QueueAction::Remove, change, |_| {}).await
        }
        QueueCommand::Suspend(args) => super::stops::suspend(&client, json, args).await,
        QueueCommand::Resume(args) => super::stops::resume(&client, json, args).await,
        QueueCommand::Suspensions => super::stops::suspensions(&client, json).await,
        QueueCommand::Sites(args) => super::stops::sites(&client, json, args).await,
    })
}

async fn list(client: &Client, json: bool, query: QueueQuery, limit: usize) -> Result<(), CliError> {
    let mut all: Vec<Delivery> = Vec::new();
    let more = client.pages("/api/queue", &query, limit, |part| all.extend(part)).await?;
    if json {
        output::json(&all);
    } else {
        let mut rows =
            Rows::new(&["ID", "STATE", "TRIES", "NEXT", "DESTINATION", "SIZE", "FROM", "TO", "LAST"]);
        for it in &all {
            rows.row(&[
                it.id.clone(),
                it.state.clone(),
                it.attempts.to_string(),
                it.due.clone().unwrap_or_else(|| "-".into()),
                it.destination.clone(),
                size(it.size),
                sender(&it.from).to_owned(),
                recipients(&it.recipients),
                last(it),
            ]);
        }
        rows.print();
    }
    if more {
        output::note(&format!("there are more than {limit}; see all with --limit 0"));
    }
    Ok(())
}

/// `<>` for the null sender.
pub(super) fn sender(from: &str) -> &str {
    if from.is_empty() { "<>" } else { from }
}

/// The first recipient, and how many more.
fn recipients(all: &[DeliveryRecipient]) -> String {
    match all {
        [] => String::new(),
        [one] => one.address.clone(),
        [first, rest @ ..] => format!("{} +{}", first.address, rest.len()),
    }
}

fn last(it: &Delivery) -> String {
    let last = it.recipients.iter().find_map(|r| r.last.as_ref()).map(|o| format!("{} {}", o.status, o.text));
    it.reason.clone().or(last).unwrap_or_default()
}

fn show(detail: &DeliveryDetail) {
    let say = |name: &str, value: &str| output::line(&format!("{name:<12} {}", clean(value)));
    say("message", &detail.message);
    if let Some(first) = detail.deliveries.first() {
        say("from", sender(&first.from));
        say("accepted", &first.received_at);
        say("size", &size(first.size));
        say("organisation", &first.org);
    }
    let optional = [
        ("message-id", &detail.message_id),
        ("client", &detail.client),
        ("ehlo", &detail.helo),
        ("credential", &detail.credential),
        ("tls", &detail.tls),
    ];
    say("by", &detail.protocol);
    for (name, value) in optional {
        if let Some(value) = value {
            say(name, value);
        }
    }
    for it in &detail.deliveries {
        output::line("");
        say("delivery", &it.id);
        say("state", &it.state);
        say("destination", &it.destination);
        say("attempts", &it.attempts.to_string());
        if let Some(due) = &it.due {
            say("next attempt", due);
        }
        if let Some(reason) = &it.reason {
            say("reason", reason);
        }
        if let Some(why) = &it.why {
            say("waits", why);
        }
        if let Some(site) = it.site.as_ref().filter(|site| **site != it.destination) {
            say("site", site);
        }
        if let Some(pool) = &it.pool {
            say("pool", &format!("{pool} ({})", it.sources.join(", ")));
        }
        for who in &it.recipients {
            say("recipient", &format!("{} {}", who.address, who.status));
            if let Some(last) = &who.last {
                say("", &format!("{} {}", last.status, last.text));
            }
        }
    }
    output::line(&format!("\nThe message itself: posthouse queue show {} --raw", detail.message));
}

async fn raw(client: &Client, id: &str) -> Result<(), CliError> {
    let response =
        client.send(Method::GET, &format!("{}/raw", at("queue", id)), "text/plain", Body::empty()).await?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| CliError::Temporary(format!("the message broke off: {e}")))?;
        if let Ok(data) = frame.into_data() {
            output::write(&data);
        }
    }
    Ok(())
}

async fn change(
    client: &Client,
    json: bool,
    action: QueueAction,
    args: ChangeArgs,
    fill: impl FnOnce(&mut QueueChange),
) -> Result<(), CliError> {
    let filter = args.filter.query();
    if filter.is_empty() && !args.all {
        return Err(CliError::Usage(
            "which deliveries? Give ids or a filter, or --all for every delivery".into(),
        ));
    }
    let mut ask = QueueChange { filter, all: args.all, dry_run: args.dry_run, reason: None, to: None };
    fill(&mut ask);
    let path = format!("/api/queue/actions/{}", action.as_str());
    let changed: QueueChanged = client.call(Method::POST, &path, Some(&ask)).await?;
    if json {
        output::json(&changed);
        return Ok(());
    }
    let verb = if changed.dry_run { "would be changed" } else { "changed" };
    let noun = if changed.changed == 1 { "delivery" } else { "deliveries" };
    output::line(&format!("{} {noun} {verb}", changed.changed));
    if changed.skipped > 0 {
        output::note(&format!(
            "{} were left as they are: their recipients are in several domains, which no mail exchanger serves together",
            changed.skipped
        ));
    }
    if changed.elsewhere > 0 {
        output::note(&format!(
            "{} are in the hands of other nodes, which hear of it within a second; an attempt under way there ends first",
            changed.elsewhere
        ));
    }
    if changed.in_flight > 0 {
        output::note(&format!(
            "{} of them are being attempted right now; for those it counts after that attempt",
            changed.in_flight
        ));
    }
    Ok(())
}
