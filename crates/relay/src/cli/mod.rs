//! The command line. Each command is a client of the management API: over the socket of a running relay, or through the
//! same router in this process while none runs.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 75 temporary (the same command may succeed later).

pub(crate) mod accounts;
mod addresses;
mod audit;
pub(crate) mod client;
mod cluster;
pub(crate) mod context;
mod explain;
mod migrate;
mod operate;
pub(crate) mod output;
mod queue;
mod quickstart;
mod routing;
mod rules;
mod sendmail;
mod smarthost;
mod smtp;
pub(crate) mod stopped;
mod stops;
mod top;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use context::{CliError, Context};

/// An email relay: takes mail from those who may send it, makes it safe on disk, and gets it where it has to go.
#[derive(Debug, Parser)]
#[command(name = "posthouse", version, max_term_width = 100, propagate_version = true)]
struct Cli {
    /// The configuration file [default: /etc/posthouse/posthouse.toml if it is there, else all by default].
    #[arg(long, global = true, value_name = "FILE", env = "POSTHOUSE_CONFIG")]
    config: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay.
    Serve,
    /// Run it with everything on: a demo organisation and credential, and a sandbox that catches all mail.
    Quickstart,
    /// Check config, certificates, data directory, DNS, port 25 and smart hosts; says what to do.
    Check(crate::check::CheckArgs),
    /// Organisations.
    #[command(subcommand)]
    Org(accounts::OrgCommand),
    /// Logins for SMTP.
    #[command(subcommand)]
    Credential(accounts::CredentialCommand),
    /// Keys for the HTTP API.
    #[command(subcommand)]
    Key(accounts::KeyCommand),
    /// Domains that organisations may use as sender.
    #[command(subcommand)]
    Domain(accounts::DomainCommand),
    /// Where mail goes.
    #[command(subcommand)]
    Route(routing::RouteCommand),
    /// Servers that take mail for delivery elsewhere.
    #[command(subcommand)]
    Smarthost(smarthost::SmartHostCommand),
    /// Outgoing addresses.
    #[command(subcommand)]
    Source(rules::NamedCommand<rules::SourceArgs>),
    /// Sources that share the work.
    #[command(subcommand)]
    Pool(rules::NamedCommand<rules::PoolArgs>),
    /// Which pool mail leaves by.
    #[command(subcommand)]
    Egress(rules::ListedCommand<rules::EgressArgs>),
    /// How much traffic sites are given.
    #[command(subcommand)]
    Shape(rules::ListedCommand<rules::ShapeArgs>),
    /// How much an organisation, a credential or a route may take.
    #[command(subcommand)]
    Ceiling(rules::ListedCommand<rules::CeilingArgs>),
    /// How connections to some recipient domains are protected.
    #[command(subcommand)]
    TlsPolicy(rules::ListedCommand<rules::TlsPolicyArgs>),
    /// Addresses that stand for others.
    #[command(subcommand)]
    Alias(addresses::AliasCommand),
    /// Envelope addresses that are written anew by a regular expression.
    #[command(subcommand)]
    Rewrite(rules::ListedCommand<addresses::RewriteArgs>),
    /// Addresses that are written to no more.
    #[command(subcommand)]
    Suppression(addresses::SuppressionCommand),
    /// What is known of providers.
    #[command(subcommand)]
    Provider(stops::ProviderCommand),
    /// What is on its way.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// What became of a message, attempt by attempt.
    Trace(trace::TraceArgs),
    /// What would happen to a message and why, sending nothing.
    Explain(explain::ExplainArgs),
    /// Who changed what, and what was done to the queue.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The nodes of a cluster.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Watch the relay work.
    Top(top::TopArgs),
    /// Read configuration and certificates again; if they are wrong, the old ones stay.
    Reload,
    /// Compare all stored content with what was written.
    Verify,
    /// Copy everything into a directory, while mail goes on.
    Backup(operate::BackupArgs),
    /// Put a backup back, into a data directory that is empty or not there.
    Restore(operate::RestoreArgs),
    /// Carry everything to PostgreSQL, or back into `data_dir`, while no relay runs.
    Migrate(migrate::MigrateArgs),
    /// The configuration's reference, its JSON Schema, or what is in force.
    #[command(subcommand)]
    Config(operate::ConfigCommand),
    /// Take a message from standard input, as sendmail(1) does.
    #[command(disable_help_flag = true)]
    Sendmail(sendmail::SendmailArgs),
    /// Print the version.
    Version,
}

/// The command line as it is, for what is written about it: a test holds every page to it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program: reads the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if let Some(command) = sendmail::called_as(arguments.first()) {
        let command = command.iter().map(|word| (*word).into());
        arguments.splice(0..1, std::iter::once("posthouse".into()).chain(command));
    }
    // Prints help and usage errors itself, with exit code 0 or 2.
    let cli = Cli::parse_from(arguments);
    let context = Context::new(cli.config, cli.json);
    match run(&context, cli.command) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error.to_string());
            error.exit_code()
        }
    }
}

fn run(context: &Context, command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Serve => operate::serve(context)?,
        Command::Quickstart => quickstart::run(context)?,
        Command::Check(args) => return crate::check::run(context, &args),
        Command::Org(command) => accounts::org(context, command)?,
        Command::Credential(command) => accounts::credential(context, command)?,
        Command::Key(command) => accounts::key(context, command)?,
        Command::Domain(command) => accounts::domain(context, command)?,
        Command::Route(command) => routing::route(context, command)?,
        Command::Smarthost(command) => smarthost::smarthost(context, command)?,
        Command::Source(command) => rules::named(context, command)?,
        Command::Pool(command) => rules::named(context, command)?,
        Command::Egress(command) => rules::listed(context, command)?,
        Command::Shape(command) => rules::listed(context, command)?,
        Command::Ceiling(command) => rules::listed(context, command)?,
        Command::TlsPolicy(command) => rules::listed(context, command)?,
        Command::Alias(command) => addresses::alias(context, command)?,
        Command::Rewrite(command) => addresses::rewrite(context, command)?,
        Command::Suppression(command) => addresses::suppression(context, command)?,
        Command::Provider(command) => stops::provider(context, command)?,
        Command::Audit(command) => audit::audit(context, command)?,
        Command::Queue(command) => queue::run(context, command)?,
        Command::Trace(args) => trace::run(context, args)?,
        Command::Explain(args) => return explain::run(context, args),
        Command::Cluster(command) => cluster::cluster(context, command)?,
        Command::Top(args) => top::run(context, &args)?,
        Command::Reload => operate::reload(context)?,
        Command::Verify => return operate::verify(context),
        Command::Backup(args) => operate::backup(context, &args)?,
        Command::Restore(args) => operate::restore(context, &args)?,
        Command::Migrate(args) => migrate::run(context, &args)?,
        Command::Config(command) => operate::config(context, &command)?,
        Command::Sendmail(args) => sendmail::run(context, args)?,
        Command::Version => operate::version(context),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn config_is_taken_anywhere_on_the_line() {
        for line in [
            "posthouse --config a.toml queue list",
            "posthouse queue --config a.toml list",
            "posthouse queue list --config a.toml",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.config.as_deref(), Some(std::path::Path::new("a.toml")), "{line}");
        }
    }
}
