//! `posthouse alias | rewrite | suppression`: addresses that stand for others, and those that are written to no more.

use api::types::{Suppression, SuppressionNew, SuppressionsQuery};
use clap::{Args, Subcommand};
use directory::rule::{self, Entry};
use hyper::Method;
use serde_json::{Value, json};

use super::accounts::{all, at, remove, show};
use super::client::{Client, NOTHING, encode};
use super::context::{CliError, Context};
use super::output;
use super::rules::{ListedCommand, RuleArgs, listed, object, show_entries};

/// What an alias stands for.
#[derive(Debug, Args)]
pub(super) struct AliasArgs {
    /// The recipient that is replaced: user@example.net, or @example.net for every address there without an alias.
    from: String,
    /// Who gets the mail instead: user@example.net, or @example.net to keep the part before the @ (again for more).
    #[arg(long, value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// Only for mail of this organisation.
    #[arg(long)]
    org: Option<String>,
}

impl RuleArgs for AliasArgs {
    type Rule = rule::Alias;
    const PATH: &'static str = "aliases";
    const HEAD: &'static [&'static str] = &["FROM", "TO", "ORG"];

    fn body(self) -> Result<Value, CliError> {
        Ok(json!({ "from": self.from, "to": self.to, "org": self.org }))
    }

    fn cells(rule: &rule::Alias) -> Vec<String> {
        vec![rule.from.clone(), rule.to.join(" "), rule.org.clone().unwrap_or_else(|| "any".into())]
    }
}

/// An alias, by what it stands for.
#[derive(Debug, Args)]
pub(super) struct WhichAlias {
    /// The address it stands for, or its id.
    from: String,
    /// Where several organisations have one: whose.
    #[arg(long)]
    org: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AliasCommand {
    /// Add one.
    Add(AliasArgs),
    /// List all; those from config come first and are changed there.
    List,
    /// Show one.
    Show(WhichAlias),
    /// Make one stand for other addresses.
    Set(AliasArgs),
    /// Remove one.
    Remove(WhichAlias),
}

pub(super) fn alias(context: &Context, command: AliasCommand) -> Result<(), CliError> {
    let json = context.json;
    context.with_client(async |client| {
        let (entries, one): (Vec<Entry<rule::Alias>>, bool) = match command {
            AliasCommand::Add(args) => {
                let body = Value::Object(object(args.body()?));
                (vec![client.call(Method::POST, "/api/aliases", Some(&body)).await?], true)
            }
            AliasCommand::List => (all(&client, "/api/aliases", None).await?, false),
            AliasCommand::Show(which) => {
                (vec![find(&client, &which.from, which.org.as_deref()).await?], true)
            }
            AliasCommand::Set(args) => {
                let found = find(&client, &args.from, args.org.as_deref()).await?;
                let body = Value::Object(object(args.body()?));
                (vec![client.call(Method::PUT, &at("aliases", &found.id), Some(&body)).await?], true)
            }
            AliasCommand::Remove(which) => {
                let found = find(&client, &which.from, which.org.as_deref()).await?;
                return remove(&client, "aliases", &found.id).await;
            }
        };
        show_entries::<AliasArgs>(json, entries, one);
        Ok(())
    })
}

/// The alias that stands for this address, or has this id.
async fn find(client: &Client, from: &str, org: Option<&str>) -> Result<Entry<rule::Alias>, CliError> {
    if !from.contains('@') {
        return client.get(&at("aliases", from)).await;
    }
    let every: Vec<Entry<rule::Alias>> = all(client, "/api/aliases", None).await?;
    let of_org = |entry: &Entry<rule::Alias>| match (org, entry.rule.org.as_deref()) {
        (Some(wanted), Some(of)) => wanted.eq_ignore_ascii_case(of),
        (Some(_), None) => false,
        (None, _) => true,
    };
    let mut found: Vec<_> =
        every.into_iter().filter(|e| e.rule.from.eq_ignore_ascii_case(from) && of_org(e)).collect();
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(CliError::Failed(format!("there is no alias {from:?}"))),
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(CliError::Usage(format!(
            "several organisations have an alias {from:?}: say which with --org"
        ))),
    }
}

/// How addresses are written anew.
#[derive(Debug, Args)]
pub(super) struct RewriteArgs {
    /// A regular expression that the whole address has to match: '^(.+)@old\.example$'.
    pattern: String,
    /// What the address becomes; $1 is the first group.
    replace: String,
    /// Which addresses: recipient or sender (again for both).
    #[arg(long, value_name = "recipient|sender", default_value = "recipient")]
    of: Vec<String>,
    /// Only for mail of this organisation.
    #[arg(long)]
    org: Option<String>,
}

impl RuleArgs for RewriteArgs {
    type Rule = rule::Rewrite;
    const PATH: &'static str = "rewrites";
    const HEAD: &'static [&'static str] = &["PATTERN", "REPLACE", "OF", "ORG"];

    fn body(self) -> Result<Value, CliError> {
        Ok(json!({ "pattern": self.pattern, "replace": self.replace, "of": self.of, "org": self.org }))
    }

    fn cells(rule: &rule::Rewrite) -> Vec<String> {
        let word = |of: &rule::RewriteOf| match of {
            rule::RewriteOf::Recipient => "recipient",
            rule::RewriteOf::Sender => "sender",
        };
        vec![
            rule.pattern.clone(),
            rule.replace.clone(),
            rule.of.iter().map(word).collect::<Vec<_>>().join(" "),
            rule.org.clone().unwrap_or_else(|| "any".into()),
        ]
    }
}

pub(super) fn rewrite(context: &Context, command: ListedCommand<RewriteArgs>) -> Result<(), CliError> {
    listed(context, command)
}

#[derive(Debug, Subcommand)]
pub(super) enum SuppressionCommand {
    /// Take in no more mail for an address.
    Add {
        /// The address.
        address: String,
        /// Whose mail.
        #[arg(long, default_value = "default")]
        org: String,
        /// Why, for those who look at it later.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// List suppressed addresses.
    List {
        /// Only addresses that hold this text.
        text: Option<String>,
        /// Only this organisation's.
        #[arg(long)]
        org: Option<String>,
        /// At most so many; 0 is all.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one, and why it is suppressed.
    Show {
        /// The address.
        address: String,
        /// Whose mail.
        #[arg(long, default_value = "default")]
        org: String,
    },
    /// Take in mail for an address again.
    Remove {
        /// The address.
        address: String,
        /// Whose mail.
        #[arg(long, default_value = "default")]
        org: String,
    },
}

pub(super) fn suppression(context: &Context, command: SuppressionCommand) -> Result<(), CliError> {
    let json = context.json;
    let one = |address: &str, org: &str| format!("{}?org={}", at("suppressions", address), encode(org));
    context.with_client(async |client| match command {
        SuppressionCommand::Add { address, org, why } => {
            let new = SuppressionNew { address, org: Some(org), reason: why };
            let made: Suppression = client.call(Method::POST, "/api/suppressions", Some(&new)).await?;
            show_suppressions(json, vec![made], true);
            Ok(())
        }
        SuppressionCommand::List { text, org, limit } => {
            let query = SuppressionsQuery { org, text, ..SuppressionsQuery::default() };
            let mut all = Vec::new();
            let more = client.pages("/api/suppressions", &query, limit, |part| all.extend(part)).await?;
            show_suppressions(json, all, false);
            if more {
                output::note(&format!("there are more than {limit}; see all with --limit 0"));
            }
            Ok(())
        }
        SuppressionCommand::Show { address, org } => {
            show_suppressions(json, vec![client.get(&one(&address, &org)).await?], true);
            Ok(())
        }
        SuppressionCommand::Remove { address, org } => {
            client.call::<()>(Method::DELETE, &one(&address, &org), NOTHING).await
        }
    })
}

fn show_suppressions(json: bool, all: Vec<Suppression>, one: bool) {
    show(json, all, one, &["ADDRESS", "ORG", "SOURCE", "CLASS", "SINCE", "BY", "REASON"], |s| {
        let cells = [&s.address, &s.org, &s.source, &s.class, &s.since, &s.by, &s.reason];
        cells.into_iter().cloned().collect()
    });
}
