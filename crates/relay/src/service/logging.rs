//! The program's own log: text for people, JSON for machines. Everything that came from outside is escaped where it is
//! logged or by the formatter, so that no line is two.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{Log, LogFormat};

/// Overrides `log.level`.
const VARIABLE: &str = "POSTHOUSE_LOG";

/// Sets up the log, once for the process.
///
/// # Errors
/// The filter is not valid, in words.
pub(crate) fn start(log: &Log) -> Result<(), String> {
    let text = std::env::var(VARIABLE).unwrap_or_else(|_| log.level.clone());
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        format!("log.level {text:?} is no filter: {error}; try \"info\" or \"info,deliver=debug\"")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => {
            use std::io::IsTerminal;
            builder.with_ansi(std::io::stderr().is_terminal()).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| error.to_string())
}
