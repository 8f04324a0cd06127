//! `posthouse migrate`.

use std::path::Path;

use clap::Args;
use mail::Clock;

use super::context::{CliError, Context};
use super::output::{self, Rows, clean};
use super::stopped::become_owner;
use crate::migrate::{self, MigrateError, Progress, Report, To};

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Where to: `store.url` and `data_dir` of the configuration are the two sides.
    #[arg(long, value_enum)]
    to: To,
    /// Only compare both sides.
    #[arg(long)]
    verify: bool,
}

impl From<MigrateError> for CliError {
    fn from(error: MigrateError) -> Self {
        let temporary = match &error {
            MigrateError::Postgres(error) => error.is_transient(),
            MigrateError::Store(error) => error.is_transient(),
            _ => false,
        };
        if temporary { Self::Temporary(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

pub(super) fn run(context: &Context, args: &MigrateArgs) -> Result<(), CliError> {
    let config = context.config()?;
    become_owner(&config, args.to == To::Embedded)?;
    let clock = Clock::system();
    let mut progress = Progress::new(clock.clone(), |text| output::note(&clean(text)));
    let report = context.block_on(async {
        Ok(if args.verify {
            migrate::verify(&config, args.to, &clock, &mut progress).await?
        } else {
            migrate::migrate(&config, args.to, &clock, &mut progress).await?
        })
    })?;
    show(context, args, &config.data_dir, &report);
    Ok(())
}

fn show(context: &Context, args: &MigrateArgs, data_dir: &Path, report: &Report) {
    if context.json {
        output::json(report);
        return;
    }
    let mut rows = Rows::new(&["what", "how many", "sha-256"]);
    for part in &report.parts {
        rows.row(&[&*part.what, &part.source.count.to_string(), &part.source.sha256[..16]]);
    }
    rows.print();
    if args.verify {
        output::line("both sides are the same");
        return;
    }
    let next = match args.to {
        To::Postgres => "set store.engine = \"postgres\" and start the relay; what was in ",
        To::Embedded => "set store.engine = \"embedded\" and start the relay, which keeps its data in ",
    };
    let rest = match args.to {
        To::Postgres => " stays there until you delete it",
        To::Embedded => " again",
    };
    output::line(&clean(&format!("both sides are the same: {next}{}{rest}", data_dir.display())));
}
