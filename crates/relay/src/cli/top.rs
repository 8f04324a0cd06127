//! `posthouse top`: the relay at work, written anew every few seconds.

use std::time::Duration;

use api::types::{Page, QueueSummary, Status};
use clap::Args;

use super::context::{CliError, Context};
use super::output::{self, Rows, size};
use crate::config::values::{format_duration, parse_duration};

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// How long to wait between two looks.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    interval: Duration,
    /// Look once.
    #[arg(long)]
    once: bool,
}

/// Moves to the upper left corner and clears what is below.
const CLEAR: &[u8] = b"\x1b[H\x1b[J";
/// Queues that are shown.
const QUEUES: usize = 15;

pub(super) fn run(context: &Context, args: &TopArgs) -> Result<(), CliError> {
    let (json, once) = (context.json, args.once || context.json);
    context.with_data(async |client| {
        let mut before: Option<Status> = None;
        loop {
            let status: Status = client.get("/api/status").await?;
            let queues: Page<QueueSummary> =
                client.get(&format!("/api/queues?largest={}", QUEUES + 1)).await?;
            if json {
                output::json(&serde_json::json!({ "status": status, "queues": queues.items }));
                return Ok(());
            }
            if !once {
                output::write(CLEAR);
            }
            show(&status, before.as_ref(), args.interval);
            show_queues(&queues.items);
            if once || !client.is_running() {
                return Ok(());
            }
            before = Some(status);
            tokio::time::sleep(args.interval).await;
        }
    })
}

fn show(now: &Status, before: Option<&Status>, interval: Duration) {
    let seconds = interval.as_secs_f64().max(0.001);
    let rate = |of: fn(&Status) -> u64| {
        let past = before.map_or(of(now), of);
        #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
        let rate = of(now).saturating_sub(past) as f64 / seconds;
        format!("{} ({rate:.1}/s)", of(now))
    };
    let up = format_duration(Duration::from_secs(now.uptime_s));
    let state = match (&now.not_ready, now.running) {
        (_, false) => "not running".to_owned(),
        (Some(why), true) => format!("not accepting mail: {why}"),
        (None, true) => format!("up {up}"),
    };
    output::line(&output::clean(&format!("{} — posthouse {}, {state}", now.hostname, now.version)));
    output::line(&format!(
        "accepted {}   delivered {}   deferred {}   failed {}",
        rate(|s| s.accepted),
        rate(|s| s.delivered),
        rate(|s| s.deferred),
        rate(|s| s.failed)
    ));
    output::line(&format!(
        "connections in {}, out {}   queued {}, in memory {}   buffers {}   content on disk {}   history behind by {}",
        now.connections_in,
        now.connections_out,
        now.queued,
        now.active,
        size(now.memory),
        size(now.content_bytes),
        now.history_lag
    ));
    output::line("");
}

fn show_queues(queues: &[QueueSummary]) {
    if queues.is_empty() {
        return output::line("nothing waits");
    }
    let mut rows = Rows::new(&["WAITING", "ORG", "DESTINATION", "STREAM", "FIRST DUE"]);
    for queue in queues.iter().take(QUEUES) {
        let cells = [&queue.waiting.to_string(), &queue.org, &queue.destination, &queue.stream, &queue.due];
        rows.row(&cells);
    }
    rows.print();
    if queues.len() > QUEUES {
        output::line("and smaller ones");
    }
}
