//! `posthouse queue suspend | resume | suspensions | sites` and `posthouse provider`.

use api::types::{
    Paging, PathView, ProviderView, ResumeQuery, ResumeReach, Suspended, SuspensionNew, SuspensionReach,
};
use clap::{Args, Subcommand};
use directory::rule::{Entry, Suspension};
use hyper::Method;

use super::accounts::{all, remove, show};
use super::client::{Client, pairs, with_query};
use super::context::{CliError, Context};
use super::output;
use crate::config::values::parse_duration;

/// Which mail; all that is given must match.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Whose mail.
    #[arg(long)]
    org: Option<String>,
    /// What kind of mail: transactional or bulk.
    #[arg(long)]
    stream: Option<String>,
    /// The recipients' domain, such as example.com or "*.example.com", for mail that goes to its mail exchangers; for mail
    /// that a route sends elsewhere, give --destination.
    #[arg(long, conflicts_with = "destination")]
    domain: Option<String>,
    /// Where a route sends mail, as `route list` and `queue list` show it: smarthost:NAME, smtp://host:port.
    #[arg(long)]
    destination: Option<String>,
    /// A provider such as gmail, or a site as `queue sites` shows it.
    #[arg(long)]
    site: Option<String>,
    /// The source that it leaves by.
    #[arg(long)]
    source: Option<String>,
}

impl Which {
    fn is_empty(&self) -> bool {
        let Self { org, stream, domain, destination, site, source } = self;
        [org, stream, domain, destination, site, source].iter().all(|it| it.is_none())
    }

    /// Whether the suspension is for this very mail.
    fn is(&self, suspension: &Suspension) -> bool {
        let same = |a: &Option<String>, b: Option<String>| match (a, b) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(&b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same(&self.org, suspension.org.clone())
            && same(&self.stream, suspension.stream.map(|s| s.as_str().to_owned()))
            && same(&self.domain, suspension.domain.as_ref().map(ToString::to_string))
            && self.destination == suspension.destination.as_ref().map(ToString::to_string)
            && same(&self.site, suspension.site.clone())
            && same(&self.source, suspension.source.clone())
    }
}

#[derive(Debug, Args)]
pub(super) struct SuspendArgs {
    #[command(flatten)]
    which: Which,
    /// Without anything else: all mail.
    #[arg(long)]
    all: bool,
    /// When it is over by itself: a time (2026-11-24T07:00:00Z), or after so long (2h); without it, when it is resumed.
    #[arg(long, value_name = "TIME", value_parser = later)]
    until: Option<String>,
    /// Why, for those who look at it later.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Only tell how many queues and deliveries it would stop.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// Suspensions by id, as `queue suspensions` shows them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// All suspensions.
    #[arg(long)]
    all: bool,
    /// Only tell which suspensions it would lift, and how many queues and deliveries would go on.
    #[arg(long)]
    dry_run: bool,
}

/// A time, or how long until then, as RFC 3339.
fn later(text: &str) -> Result<String, String> {
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    let after = parse_duration(text)
        .map_err(|_| format!("{text:?} is no time, such as 2026-11-24T07:00:00Z, or 2h for in two hours"))?;
    Ok(mail::Clock::system().now().plus(after).to_string())
}

pub(super) async fn suspend(client: &Client, json: bool, args: SuspendArgs) -> Result<(), CliError> {
    if args.which.is_empty() && !args.all {
        return Err(CliError::Usage("which mail? Give a filter, or --all to stop everything".into()));
    }
    let Which { org, stream, domain, destination, site, source } = args.which;
    let by_domain = domain.clone();
    let new = SuspensionNew {
        org,
        stream,
        domain,
        destination,
        site,
        source,
        until: args.until,
        reason: args.why,
        all: args.all,
        dry_run: args.dry_run,
    };
    let made: Suspended = client.call(Method::POST, "/api/suspensions", Some(&new)).await?;
    if json {
        output::json(&made);
        return Ok(());
    }
    let Suspended { suspension, reach } = made;
    let is_made = suspension.is_some();
    if let Some(made) = suspension {
        show_suspensions(false, vec![made], true);
        output::note("mail is still accepted for it and waits in the queue");
    }
    let Some(reach) = reach else { return Ok(()) };
    let how_many = sums(reach.deliveries, reach.queues);
    if is_made {
        output::note(&format!("it stops {how_many} now"));
    } else {
        output::line(&format!("{how_many} would be suspended"));
    }
    if reach.by_other_source > 0 {
        let these = sum(reach.by_other_source, "delivery", "deliveries");
        output::note(&format!("{these} may leave by another source of the pool, and go on by that one"));
    }
    if let Some(domain) = by_domain {
        tell_routed(&domain, &reach);
    }
    Ok(())
}

/// `3 deliveries in 1 queue`.
fn sums(deliveries: u64, queues: u64) -> String {
    format!("{} in {}", sum(deliveries, "delivery", "deliveries"), sum(queues, "queue", "queues"))
}

fn sum(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A domain is its mail exchangers; a route that sends mail for it elsewhere has a name of its own.
fn tell_routed(domain: &str, reach: &SuspensionReach) {
    if reach.routed.is_empty() {
        return;
    }
    let these: Vec<String> = reach.routed.iter().map(|to| format!("--destination {to}")).collect();
    output::note(&output::clean(&format!(
        "mail for {domain} that a route sends elsewhere is not concerned; to stop that (with all that goes there): {}",
        these.join(", ")
    )));
}

pub(super) async fn resume(client: &Client, json: bool, args: ResumeArgs) -> Result<(), CliError> {
    if args.ids.is_empty() && args.which.is_empty() && !args.all {
        return Err(CliError::Usage("which suspensions? Give ids, the filter of one, or --all".into()));
    }
    let every: Vec<Entry<Suspension>> = all(client, "/api/suspensions", None).await?;
    let is_meant = |entry: &Entry<Suspension>| {
        args.all
            || args.ids.iter().any(|id| *id == *entry.id)
            || (!args.which.is_empty() && args.which.is(&entry.rule))
    };
    let unknown = args.ids.iter().find(|id| !every.iter().any(|entry| *entry.id == ***id));
    if let Some(id) = unknown {
        return Err(CliError::Failed(format!(
            "there is no suspension {id:?}: see `posthouse queue suspensions`"
        )));
    }
    let meant: Vec<Entry<Suspension>> = every.into_iter().filter(is_meant).collect();
    if meant.is_empty() && !args.all {
        return Err(CliError::Failed(
            "nothing is suspended by this very filter: see `posthouse queue suspensions`".into(),
        ));
    }
    if args.dry_run {
        return would_resume(client, json, meant).await;
    }
    for entry in &meant {
        remove(client, "suspensions", &entry.id).await?;
    }
    if json {
        output::json(&meant);
    } else {
        for entry in &meant {
            output::line(&output::clean(&format!("{} resumed: {}", entry.id, entry.rule.scope())));
        }
    }
    Ok(())
}

/// What lifting these would do.
async fn would_resume(client: &Client, json: bool, meant: Vec<Entry<Suspension>>) -> Result<(), CliError> {
    let ids: Vec<&str> = meant.iter().map(|entry| &*entry.id).collect();
    let query = ResumeQuery { ids: ids.join(",") };
    let reach: ResumeReach = client.get(&with_query("/api/suspensions/reach", &pairs(&query))).await?;
    if json {
        output::json(&serde_json::json!({ "dry_run": true, "suspensions": meant, "reach": reach }));
        return Ok(());
    }
    for entry in &meant {
        output::line(&output::clean(&format!("{} would be resumed: {}", entry.id, entry.rule.scope())));
    }
    output::line(&format!("{} would go on", sums(reach.deliveries, reach.queues)));
    if reach.still_suspended > 0 {
        let verb = if reach.still_suspended == 1 { "delivery stays" } else { "deliveries stay" };
        output::note(&format!("{} {verb} suspended by another one", reach.still_suspended));
    }
    Ok(())
}

pub(super) async fn suspensions(client: &Client, json: bool) -> Result<(), CliError> {
    show_suspensions(json, all(client, "/api/suspensions", None).await?, false);
    Ok(())
}

fn show_suspensions(json: bool, entries: Vec<Entry<Suspension>>, one: bool) {
    show(json, entries, one, &["ID", "WHAT", "SINCE", "UNTIL", "BY", "WHY"], |entry| {
        let it = &entry.rule;
        let text = |time: Option<mail::Timestamp>| time.map_or_else(|| "-".into(), |t| t.to_string());
        vec![
            entry.id.to_string(),
            it.scope(),
            text(it.since),
            it.until.map_or_else(|| "resumed".into(), |t| t.to_string()),
            it.by.clone(),
            it.reason.clone(),
        ]
    });
}

/// Which paths.
#[derive(Debug, Args)]
pub(super) struct SitesArgs {
    /// Only sites whose name holds this text.
    text: Option<String>,
    /// Only from this source.
    #[arg(long)]
    source: Option<String>,
}

pub(super) async fn sites(client: &Client, json: bool, args: SitesArgs) -> Result<(), CliError> {
    let mut paths: Vec<PathView> = all(client, "/api/paths", None).await?;
    paths.retain(|path| {
        args.text.as_ref().is_none_or(|text| path.site.contains(text.as_str()))
            && args.source.as_ref().is_none_or(|source| path.source == *source)
    });
    let head =
        ["SITE", "SOURCE", "CONNECTIONS", "WINDOW", "WAITING", "RATE", "HEALTH", "UNTIL", "WARM-UP", "WHY"];
    show(json, paths, false, &head, |path| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let warmup = path.warmup.as_ref().map(|w| format!("day {}: {} of {}", w.day, w.sent, w.limit));
        vec![
            path.site.clone(),
            path.source.clone(),
            path.connections.to_string(),
            path.window.to_string(),
            path.waiting.to_string(),
            or_dash(&path.rate),
            path.health.clone(),
            or_dash(&path.until),
            or_dash(&warmup),
            path.why.clone().unwrap_or_default(),
        ]
    });
    Ok(())
}

#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// List the providers that are known by their mail exchangers, and what they are given.
    List,
    /// Show one.
    Show {
        /// Its name.
        name: String,
    },
}

pub(super) fn provider(context: &Context, command: ProviderCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| {
        let mut providers: Vec<ProviderView> = Vec::new();
        client.pages("/api/providers", &Paging::default(), 0, |part| providers.extend(part)).await?;
        match command {
            ProviderCommand::List => show_providers(json, providers, false),
            ProviderCommand::Show { name } => {
                let found = providers.into_iter().find(|p| p.name == name);
                let found =
                    found.ok_or_else(|| CliError::Failed(format!("there is no provider {name:?}")))?;
                let sources = found.sources.clone();
                show_providers(json, vec![found], true);
                if !json && !sources.is_empty() {
                    output::line("\nwhere the values come from:");
                    sources.iter().for_each(|source| output::line(&format!("  {}", output::clean(source))));
                }
            }
        }
        Ok(())
    })
}

fn show_providers(json: bool, providers: Vec<ProviderView>, one: bool) {
    let head = ["NAME", "CONNECTIONS", "PER CONNECTION", "RATE", "CONNECTION RATE", "REPLIES", "MX"];
    show(json, providers, one, &head, |p| {
        let number = |n: Option<u32>| n.map_or_else(|| "-".into(), |n| n.to_string());
        let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".into());
        vec![
            p.name.clone(),
            number(p.connections),
            number(p.messages_per_connection),
            text(&p.rate),
            text(&p.connection_rate),
            p.patterns.to_string(),
            p.mx.join(" "),
        ]
    });
}
