//! `posthouse sendmail`: takes a message from standard input as sendmail(1) does. It goes to the management socket, or,
//! where that is not open to the user, by SMTP to the relay's own listener.
//!
//! Exit codes: 0 the message is on stable storage, 75 try again later, 1 refused, 2 usage.

mod letter;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use api::types::{Envelope, Submitted};
use axum::body::Body;
use clap::Args;
use hyper::Method;
use mail::Address;

use super::client::Client;
use super::context::{CliError, Context};
use super::{output, quickstart, smtp};
use crate::config::{Config, Mode};
use letter::Letter;

/// Where a relay on this machine may listen, when its configuration cannot be read.
const USUAL_PORTS: [u16; 2] = [25, 2525];
/// The largest message when the configuration cannot be read.
const USUAL_SIZE: u64 = 50_000_000;

/// The options of sendmail(1) that say something about a message. Others are accepted and do nothing.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(super) struct SendmailArgs {
    /// Take the recipients from the To, Cc and Bcc fields, too.
    #[arg(short = 't')]
    from_header: bool,
    /// A line with a dot alone does not end the message.
    #[arg(short = 'i')]
    ignore_dots: bool,
    /// The envelope's sender; "<>" is the null sender.
    #[arg(short = 'f', value_name = "ADDRESS", visible_short_alias = 'r', allow_hyphen_values = true)]
    sender: Option<String>,
    /// The sender's full name, for a From field that is missing.
    #[arg(short = 'F', value_name = "NAME", allow_hyphen_values = true)]
    full_name: Option<String>,
    /// m: take a message (default); s: speak SMTP on standard input and output; p: list the queue.
    #[arg(short = 'b', value_name = "MODE")]
    mode: Option<String>,
    /// i: a line with a dot alone does not end the message. Others do nothing.
    #[arg(short = 'o', value_name = "OPTION", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Does nothing.
    #[arg(short = 'O', value_name = "OPTION=VALUE")]
    long_options: Vec<String>,
    /// Does nothing: the body's type is found in the message.
    #[arg(short = 'B', value_name = "TYPE")]
    body: Option<String>,
    /// Does nothing: errors are told by the exit code and by a report.
    #[arg(short = 'e', value_name = "MODE")]
    errors: Option<String>,
    /// Does nothing.
    #[arg(short = 'h', value_name = "HOPS")]
    hops: Option<String>,
    /// Does nothing.
    #[arg(short = 'L', value_name = "TAG")]
    tag: Option<String>,
    /// Does nothing.
    #[arg(short = 'm')]
    me_too: bool,
    /// Does nothing.
    #[arg(short = 'n')]
    no_alias: bool,
    /// Does nothing.
    #[arg(short = 'U')]
    first_submission: bool,
    /// Say the message's id.
    #[arg(short = 'v')]
    verbose: bool,
    /// The recipients.
    #[arg(value_name = "RECIPIENT")]
    recipients: Vec<String>,
}

/// Whether the program was called by the name of another one.
pub(super) fn called_as(name: Option<&OsString>) -> Option<&'static [&'static str]> {
    match Path::new(name?).file_name()?.to_str()? {
        "sendmail" => Some(&["sendmail"]),
        "mailq" => Some(&["queue", "list"]),
        "newaliases" => Some(&["version"]),
        _ => None,
    }
}

pub(super) fn run(context: &Context, args: SendmailArgs) -> Result<(), CliError> {
    // A person who sends mail may not be allowed to read the relay's configuration.
    let config = context.config();
    match args.mode.as_deref() {
        None | Some("m") => {}
        Some("s") => return speak_smtp(config.as_ref().ok()),
        Some("p") => return super::queue::run(context, super::queue::QueueCommand::all()),
        Some(other) => {
            return Err(CliError::Usage(format!("-b{other} is not possible here; -bm, -bs and -bp are")));
        }
    }
    let verbose = args.verbose;
    let (envelope, content) = compose(config.as_ref().ok(), args)?;
    let mut done = 0;
    while done < envelope.to.len() {
        let (sent, taken) = part(context, config.as_ref().ok(), &envelope, done, &content)
            .map_err(|error| behind(error, done, envelope.to.len()))?;
        done += taken;
        if verbose {
            output::note(&output::clean(&sent));
        }
    }
    Ok(())
}

/// Hands the message over for the recipients behind the first `done`, as many as are taken at a time. Says which message
/// that is, and how many recipients.
fn part(
    context: &Context,
    config: Option<&Config>,
    envelope: &Envelope,
    done: usize,
    content: &[u8],
) -> Result<(String, usize), CliError> {
    let left = &envelope.to[done..];
    if let Some(config) = config {
        let to = left[..left.len().min(config.limits.recipients)].to_vec();
        let taken = to.len();
        let part = Envelope { from: envelope.from.clone(), to };
        if let Some(id) = submit(context, config, &part, content)? {
            return Ok((id, taken));
        }
    }
    by_smtp(config, &envelope.from, left, content)
}

/// With more recipients than fit into one message, some of them may have it already.
fn behind(error: CliError, done: usize, all: usize) -> CliError {
    if done == 0 {
        return error;
    }
    let text = format!(
        "{error}; the message was taken for the first {done} of {all} recipients, and not for the others"
    );
    if error.is_temporary() { CliError::Temporary(text) } else { CliError::Failed(text) }
}

/// Reads the message and makes its envelope.
fn compose(config: Option<&Config>, args: SendmailArgs) -> Result<(Envelope, Vec<u8>), CliError> {
    let hostname = config.map_or_else(
        || Config::parse("", None).map(|c| c.hostname).unwrap_or_default(),
        |c| c.hostname.clone(),
    );
    let limit = config.map_or(USUAL_SIZE, |c| c.queue.max_message_size);
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(limit + 1).read_to_end(&mut input);
    read.map_err(|e| CliError::Temporary(format!("standard input: {e}")))?;
    if input.len() as u64 > limit {
        return Err(CliError::Failed(format!("the message is larger than {limit} octets")));
    }
    let dots = args.ignore_dots || args.options.iter().any(|o| o == "i");
    let mut letter = Letter::read(&input, !dots).map_err(CliError::Failed)?;
    let mut to = args.recipients;
    if args.from_header {
        to.extend(letter.recipients().map_err(CliError::Failed)?);
    }
    letter.remove_bcc();
    let from = match args.sender.as_deref().map(|s| s.trim_start_matches('<').trim_end_matches('>')) {
        None => address(&user_name(), &hostname)?,
        Some("") => String::new(),
        Some(given) => address(given, &hostname)?,
    };
    let to = to.iter().map(|t| address(t, &hostname)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = std::collections::HashSet::new();
    let to: Vec<String> = to.into_iter().filter(|t| seen.insert(t.clone())).collect();
    if to.is_empty() {
        return Err(CliError::Usage(
            "no recipients: name them, or use -t to take them from the header".into(),
        ));
    }
    letter.complete(&from, args.full_name.as_deref(), &hostname, mail::Clock::system().now());
    Ok((Envelope { from, to }, letter.into_bytes()))
}

/// An address, with the machine's name behind a bare user name.
fn address(text: &str, hostname: &str) -> Result<String, CliError> {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>');
    let whole = if text.contains('@') { text.to_owned() } else { format!("{text}@{hostname}") };
    let parsed = Address::parse(&whole);
    parsed.map(|a| a.to_string()).map_err(|e| CliError::Failed(format!("{}: {e}", output::clean(&whole))))
}

fn user_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    user.map_or_else(|| "nobody".into(), |user| user.name)
}

/// Over the management socket; none when it is not there for us.
fn submit(
    context: &Context,
    config: &Config,
    envelope: &Envelope,
    content: &[u8],
) -> Result<Option<String>, CliError> {
    context.block_on(async {
        // Not there, or not for this user: the listener decides.
        let Ok(Some(client)) = Client::running(config).await else { return Ok(None) };
        let mut body = serde_json::to_vec(envelope).map_err(|e| CliError::failed("the envelope", &e))?;
        body.push(b'\n');
        body.extend_from_slice(content);
        let response = client.send(Method::POST, "/api/submit", "message/rfc822", Body::from(body)).await?;
        let done: Submitted = super::client::read(response).await?;
        Ok(Some(done.id))
    })
}

fn servers(config: Option<&Config>) -> Vec<SocketAddr> {
    match config {
        Some(config) => quickstart::address(config, Mode::Smtp).into_iter().collect(),
        None => USUAL_PORTS.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).to_vec(),
    }
}

fn by_smtp(
    config: Option<&Config>,
    from: &str,
    to: &[String],
    content: &[u8],
) -> Result<(String, usize), CliError> {
    let mut first = None;
    for server in servers(config) {
        match smtp::send(server, from, to, content) {
            Err(CliError::Temporary(why)) => first = first.or(Some(why)),
            Err(CliError::Failed(why)) if why.contains("5.7.1") => {
                let help = "the relay does not take mail from users of this machine: add \"127.0.0.1\" to relay.networks, \
                            or run this as root";
                return Err(CliError::Failed(format!("{why} ({help})")));
            }
            other => return other,
        }
    }
    Err(CliError::Temporary(first.unwrap_or_else(|| {
        "the relay is not running, or its socket is not open to you, and it has no listener of mode \"smtp\"".into()
    })))
}

/// `-bs`: standard input and output become a session with the relay's listener.
fn speak_smtp(config: Option<&Config>) -> Result<(), CliError> {
    let mut lost = CliError::Temporary("the relay has no listener of mode \"smtp\"".into());
    for server in servers(config) {
        let stream = TcpStream::connect_timeout(&server, Duration::from_secs(10));
        let stream = match stream.and_then(|s| Ok((s.try_clone()?, s))) {
            Ok(pair) => pair,
            Err(e) => {
                lost = CliError::Temporary(format!("the relay at {server}: {e}"));
                continue;
            }
        };
        let (mut write, mut read) = stream;
        // Ends with the process: the session is over when the relay closes.
        std::thread::spawn(move || {
            let copied = std::io::copy(&mut std::io::stdin().lock(), &mut write);
            copied.and_then(|_| write.flush()).and_then(|()| write.shutdown(std::net::Shutdown::Write))
        });
        let copied = std::io::copy(&mut read, &mut std::io::stdout().lock());
        return copied.map(drop).map_err(|e| CliError::Temporary(format!("the relay at {server}: {e}")));
    }
    Err(lost)
}
