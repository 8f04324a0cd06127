//! `posthouse explain`: what would happen to a message, by the functions that the pipeline itself calls.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use api::types::{ExplainRequest, Explanation, MessageFacts, Verdict};
use clap::Args;
use hyper::Method;
use mail::HeaderScan;

use super::context::{CliError, Context};
use super::output::{self, clean};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The envelope's sender; "<>" is the null sender.
    #[arg(long)]
    from: String,
    /// A recipient (again for more).
    #[arg(long, required = true)]
    to: Vec<String>,
    /// The client's address; without it, this machine.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// The login it authenticates as.
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// The listener it comes to; without it, a submission listener for one with a login, else an smtp one.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The message, to look at its size and content.
    #[arg(value_name = "FILE.eml")]
    file: Option<PathBuf>,
}

/// Exit code 0 when everything would be accepted, else 1.
pub(super) fn run(context: &Context, args: ExplainArgs) -> Result<ExitCode, CliError> {
    let ask = ExplainRequest {
        from: args.from,
        to: args.to,
        client: args.client,
        credential: args.credential,
        listener: args.listener,
        message: args.file.as_deref().map(facts).transpose()?,
    };
    let json = context.json;
    context.with_client(async |client| {
        let said: Explanation = client.call(Method::POST, "/api/explain", Some(&ask)).await?;
        if json {
            output::json(&said)
        } else {
            show(&said)
        }
        let content = said.content.as_ref().is_none_or(|v| v.accepted);
        let all = said.sender.accepted && content && said.recipients.iter().all(|r| r.verdict.accepted);
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// How much of a message is looked at for its header section.
const HEADER_MAX: usize = 16 << 20;

fn facts(path: &Path) -> Result<MessageFacts, CliError> {
    let fail = |e: std::io::Error| CliError::failed(&format!("{} cannot be read", path.display()), &e);
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let mut facts = MessageFacts::default();
    let mut head = Vec::new();
    let (mut chunk, mut last) = (vec![0; 64 * 1024], 0u8);
    loop {
        let read = file.read(&mut chunk).map_err(fail)?;
        if read == 0 {
            break;
        }
        for &byte in &chunk[..read] {
            facts.bare_newlines |= (byte == b'\n') != (last == b'\r');
            facts.eight_bit |= byte > 127;
            last = byte;
        }
        facts.size += read as u64;
        head.extend_from_slice(&chunk[..read.min(HEADER_MAX - head.len().min(HEADER_MAX))]);
    }
    facts.bare_newlines |= last == b'\r';
    if facts.bare_newlines {
        // Most files on this system have lines that end in LF. Header fields are found all the same.
        let text: Vec<u8> = head.iter().copied().filter(|&b| b != b'\r').collect();
        head = text.iter().flat_map(|&b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] }).collect();
    }
    let scan = HeaderScan::of(&head);
    (facts.received, facts.header_non_ascii) = (scan.received, scan.non_ascii);
    Ok(facts)
}

fn show(said: &Explanation) {
    let say = |text: &str| output::line(&clean(text));
    let verdict = |name: &str, verdict: &Verdict| {
        let word = if verdict.accepted { "accepted" } else { "refused" };
        say(&format!("{name}: {word}: {}", verdict.why));
        say(&format!("    reply: {}", verdict.reply));
    };
    say(&format!("client: {}", said.client));
    verdict("sender", &said.sender);
    if let Some(content) = &said.content {
        verdict("message", content);
    }
    for who in &said.recipients {
        verdict(&format!("recipient {}", who.recipient), &who.verdict);
        if let Some(route) = &who.route {
            say(&format!("    route: {route}"));
        }
        if !who.becomes.is_empty() {
            say(&format!("    becomes: {}", who.becomes.join(", ")));
        }
        if let Some(destination) = &who.destination {
            say(&format!("    destination: {destination}"));
        }
        for (name, value) in [("site", &who.site), ("pool", &who.pool), ("tls", &who.tls)] {
            if let Some(value) = value {
                say(&format!("    {name}: {value}"));
            }
        }
        for source in &who.sources {
            say(&format!("    source: {source}"));
        }
        for bound in &who.bounds {
            say(&format!("    bound: {bound}"));
        }
        for (i, hop) in who.next_hops.iter().enumerate() {
            say(&format!("    {}: {hop}", i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.eml");
        for (content, expected) in [
            ("Received: a\r\n\r\nbody\r\n", (21, false, false, 1, false)),
            ("Received: a\nReceived: b\n\nbody\n", (30, false, false, 2, true)),
            ("Subject: \u{e9}\r\n\r\nbody", (19, true, true, 0, false)),
            ("Subject: e\r\n\r\nb\u{e9}dy\r", (20, true, false, 0, true)),
        ] {
            std::fs::write(&path, content).unwrap();
            let f = facts(&path).unwrap();
            assert_eq!(
                (f.size, f.eight_bit, f.header_non_ascii, f.received, f.bare_newlines),
                expected,
                "{content:?}"
            );
        }
    }
}
