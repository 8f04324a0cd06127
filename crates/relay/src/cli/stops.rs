//! `posthouse queue suspend | resume | suspensions | sites`, `posthouse provider` and `posthouse audit`.

use api::types::{AuditEntry, AuditQuery, Paging, PathView, ProviderView, SuspensionNew};
use clap::{Args, Subcommand};
use directory::rule::{Entry, Suspension};
use hyper::Method;

use super::accounts::{all, remove, show};
use super::client::Client;
use super::context::{CliError, Context};
use super::output;
use super::trace::time;
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
    /// The recipients' domain, such as example.com or "*.example.com".
    #[arg(long)]
    domain: Option<String>,
    /// A provider such as gmail, or a site as `queue sites` shows it.
    #[arg(long)]
    site: Option<String>,
    /// The source that it leaves by.
    #[arg(long)]
    source: Option<String>,
}

impl Which {
    fn is_empty(&self) -> bool {
        let Self { org, stream, domain, site, source } = self;
        [org, stream, domain, site, source].iter().all(|it| it.is_none())
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
    let Which { org, stream, domain, site, source } = args.which;
    let new = SuspensionNew {
        org,
        stream,
        domain,
        site,
        source,
        until: args.until,
        reason: args.why,
        all: args.all,
    };
    let made: Entry<Suspension> = client.call(Method::POST, "/api/suspensions", Some(&new)).await?;
    show_suspensions(json, vec![made], true);
    if !json {
        output::note("mail is still accepted for it and waits in the queue");
    }
    Ok(())
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

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List what was changed and done to the queue, newest first.
    List {
        /// At or after this time (2026-11-24T07:00:00Z), or so long ago (2h).
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<String>,
        /// By someone whose name holds this.
        #[arg(long, value_name = "WHO")]
        by: Option<String>,
        /// To this kind of thing: organisation, credential, route, source, suspension, queue, …
        #[arg(long, value_name = "KIND")]
        what: Option<String>,
        /// To the thing of this name.
        #[arg(long)]
        name: Option<String>,
        /// At most so many; 0 is all.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

pub(super) fn audit(context: &Context, command: AuditCommand) -> Result<(), CliError> {
    let json = context.json;
    let AuditCommand::List { since, by, what, name, limit } = command;
    let query = AuditQuery { since, by, what, name, ..AuditQuery::default() };
    context.with_data(async |client| {
        let mut entries: Vec<AuditEntry> = Vec::new();
        let more = client.pages("/api/audit", &query, limit, |part| entries.extend(part)).await?;
        show(json, entries, false, &["AT", "BY", "ACTION", "WHAT", "NAME", "DETAIL"], |e| {
            vec![e.at.clone(), e.by.clone(), e.action.clone(), e.what.clone(), e.name.clone(), detail(e)]
        });
        if more {
            output::note(&format!("there are more than {limit}; see all with --limit 0"));
        }
        Ok(())
    })
}

/// What a change changed, in a line: keys that differ, or how many deliveries.
fn detail(entry: &AuditEntry) -> String {
    let text = |value: Option<&serde_json::Value>| match value {
        None | Some(serde_json::Value::Null) => "-".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if entry.what == "queue" {
        let after = entry.after.as_ref();
        return format!("{} deliveries", text(after.and_then(|after| after.get("changed"))));
    }
    let (Some(before), Some(after)) = (&entry.before, &entry.after) else { return String::new() };
    let keys = after.as_object().into_iter().chain(before.as_object()).flat_map(|o| o.keys());
    let mut changed: Vec<&String> = keys.filter(|key| before.get(*key) != after.get(*key)).collect();
    changed.sort_unstable();
    changed.dedup();
    let words =
        changed.iter().map(|key| format!("{key}: {} → {}", text(before.get(*key)), text(after.get(*key))));
    words.collect::<Vec<_>>().join(", ")
}
