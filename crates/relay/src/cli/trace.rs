//! `posthouse trace`: what became of a message.

use api::types::{Trace, TraceQuery, TraceStep};
use clap::Args;

use super::context::{CliError, Context};
use super::output::{self, clean, clean_lines, size};
use super::queue::sender;
use crate::config::values::parse_duration;

/// Which messages; all that is given must match; newest first.
#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// A message or delivery id, an address (sender or recipient), a Message-ID, or a recipient's domain.
    query: Option<String>,
    /// The envelope's sender; "<>" is the null sender.
    #[arg(long)]
    from: Option<String>,
    /// A recipient.
    #[arg(long)]
    to: Option<String>,
    /// A recipient's domain.
    #[arg(long)]
    domain: Option<String>,
    /// The Message-ID header field.
    #[arg(long)]
    message_id: Option<String>,
    /// A message or delivery id.
    #[arg(long)]
    id: Option<String>,
    /// Only this organisation's mail.
    #[arg(long)]
    org: Option<String>,
    /// Accepted at or after this time (2026-11-24T07:00:00Z), or so long ago (2h).
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Accepted before this time, or longer ago than this.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// At most so many messages; 0 is all.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Leave out the dialogues.
    #[arg(long)]
    brief: bool,
}

/// A time, or how long ago it was, as RFC 3339.
pub(super) fn time(text: &str) -> Result<String, String> {
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    let ago = parse_duration(text)
        .map_err(|_| format!("{text:?} is no time, such as 2026-11-24T07:00:00Z, or 2h for two hours ago"))?;
    let ago = i64::try_from(ago.as_millis()).map_err(|_| "that is too long ago".to_owned())?;
    let now = mail::Clock::system().now();
    Ok(mail::Timestamp(now.millis().saturating_sub(ago)).to_string())
}

pub(super) fn run(context: &Context, args: TraceArgs) -> Result<(), CliError> {
    let (json, brief, limit) = (context.json, args.brief, args.limit);
    let query = TraceQuery {
        text: args.query,
        from: args.from,
        to: args.to,
        domain: args.domain,
        message_id: args.message_id,
        id: args.id,
        org: args.org,
        since: args.since,
        until: args.until,
        limit: None,
        after: None,
    };
    context.with_data(async |client| {
        let mut all: Vec<Trace> = Vec::new();
        let more = client.pages("/api/trace", &query, limit, |part| all.extend(part)).await?;
        if json {
            output::json(&all);
        } else {
            for (i, trace) in all.iter().enumerate() {
                if i > 0 {
                    output::line("");
                }
                show(trace, brief);
            }
        }
        if all.is_empty() && !json {
            return Err(CliError::Failed("nothing is known of such a message".into()));
        }
        if more {
            output::note(&format!("there are more than {limit}; see all with --limit 0"));
        }
        Ok(())
    })
}

fn show(trace: &Trace, brief: bool) {
    let say = |text: &str| output::line(&clean(text));
    say(&format!(
        "{}  {}",
        trace.id,
        trace.received_at.as_deref().unwrap_or("(its beginning is no longer on record)")
    ));
    if let Some(from) = &trace.from {
        let size = size(trace.size.unwrap_or_default());
        let id = trace.message_id.as_deref().map_or(String::new(), |id| format!("  Message-ID <{id}>"));
        say(&format!("  from {}  {size}{id}", sender(from)));
    }
    if let Some(origin) = origin(trace) {
        say(&format!("  accepted {origin}"));
    }
    if let Some(about) = &trace.report_on {
        say(&format!("  it is a report on {about}"));
    }
    for who in &trace.recipients {
        let last = who.last.as_ref().map_or(String::new(), |o| format!(": {} {}", o.status, o.text));
        let tries = match who.attempts {
            0 => String::new(),
            1 => ", 1 attempt".into(),
            n => format!(", {n} attempts"),
        };
        say(&format!("  to {} — {} since {}{tries}{last}", who.address, who.end, who.since));
    }
    for step in &trace.steps {
        show_step(step, brief);
    }
}

fn origin(trace: &Trace) -> Option<String> {
    let protocol = trace.protocol.as_deref()?;
    let mut text = format!("by {protocol}");
    let parts = [
        (" on listener ", &trace.listener),
        (" from ", &trace.client),
        (" ehlo ", &trace.helo),
        (" as ", &trace.credential),
        (" with ", &trace.tls),
    ];
    for (word, value) in parts {
        if let Some(value) = value {
            text.push_str(word);
            text.push_str(value);
        }
    }
    Some(text)
}

fn show_step(step: &TraceStep, brief: bool) {
    let say = |text: &str| output::line(&clean(text));
    say(&format!("  {} {}", step.at, step.text));
    if step.what == "attempt" {
        let remote = step.remote.as_ref().map_or(String::new(), |r| format!(" answered by {r}"));
        let tls = step.tls.as_ref().map_or(String::new(), |t| format!(" with {t}"));
        let took = step.duration_ms.map_or(String::new(), |ms| format!(" in {ms} ms"));
        let destination = step.destination.as_deref().unwrap_or_default();
        let source = step.source.as_ref().map_or(String::new(), |s| format!(" from source {s}"));
        say(&format!("      {destination}{remote}{source}{tls}{took}"));
        if let Some(security) = &step.security {
            say(&format!("      protection asked for: {security}"));
        }
    }
    for who in &step.recipients {
        match &who.outcome {
            Some(o) => {
                let code = o.code.map_or(String::new(), |c| format!("{c} "));
                let class = o.class.as_ref().map_or(String::new(), |c| format!(" ({c})"));
                say(&format!(
                    "      {} {}{class}: {code}{} {}",
                    who.address, o.disposition, o.status, o.text
                ));
            }
            None => say(&format!("      {}", who.address)),
        }
    }
    if let Some(report) = &step.report {
        say(&format!("      the report is {report}"));
    }
    if let Some(transcript) = step.transcript.as_ref().filter(|_| !brief) {
        for text in clean_lines(transcript) {
            output::line(&format!("      | {text}"));
        }
    }
}
