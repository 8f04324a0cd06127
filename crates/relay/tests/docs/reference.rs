//! The reference of the commands, as Markdown, from the parser's own words.

use clap::{Arg, ArgAction, Command};

/// Where the written part begins.
pub(crate) const MARK: &str = "<!-- From here on written by crates/relay/tests/docs.rs -->\n";

/// All commands with all their options.
pub(crate) fn write() -> String {
    let mut root = relay::cli::command();
    root.build();
    let mut out = String::from("\n## Options of every command\n\n");
    table(&root, true, &mut out);
    for command in root.get_subcommands().filter(|c| c.get_name() != "help") {
        section(command, &format!("posthouse {}", command.get_name()), &mut out);
    }
    out
}

fn section(command: &Command, name: &str, out: &mut String) {
    let below: Vec<&Command> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    if !below.is_empty() {
        for command in below {
            section(command, &format!("{name} {}", command.get_name()), out);
        }
        return;
    }
    let positionals: Vec<String> = command.get_positionals().map(|arg| format!(" {}", shape(arg))).collect();
    out.push_str(&format!("\n## `{name}{}`\n\n{}\n", positionals.concat(), sentence(&about)));
    let mut rows = String::new();
    table(command, false, &mut rows);
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&rows);
    }
}

/// The table of a command's options; of the root, those that are for all commands.
fn table(command: &Command, global: bool, out: &mut String) {
    let is_shown = |arg: &&Arg| {
        let its_own = !matches!(arg.get_id().as_str(), "help" | "version");
        arg.is_global_set() == global && its_own && !arg.is_hide_set()
    };
    let mut rows = command.get_arguments().filter(is_shown).peekable();
    if rows.peek().is_none() {
        return;
    }
    out.push_str("| what is typed | what it means |\n|---|---|\n");
    for arg in rows {
        let mut help = sentence(&arg.get_help().map(ToString::to_string).unwrap_or_default());
        let default: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
        if !default.is_empty() && arg.get_action().takes_values() {
            help.push_str(&format!(" Default: `{}`.", default.join(" ")));
        }
        out.push_str(&format!("| `{}` | {} |\n", cell(&shape(arg)), cell(&help)));
    }
}

/// How an argument is typed.
fn shape(arg: &Arg) -> String {
    let names: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let value = if names.is_empty() { arg.get_id().to_string().to_uppercase() } else { names.join(" ") };
    let many = matches!(arg.get_action(), ArgAction::Append);
    if arg.is_positional() {
        let more = if many { "…" } else { "" };
        return if arg.is_required_set() { format!("{value}{more}") } else { format!("[{value}{more}]") };
    }
    let short = arg.get_short().map(|c| format!("-{c}"));
    let name = short.into_iter().chain(arg.get_long().map(|long| format!("--{long}"))).collect::<Vec<_>>();
    let name = name.join(", ");
    if arg.get_action().takes_values() { format!("{name} {value}") } else { name }
}

/// Text that clap leaves without its last full stop gets it back.
fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() || text.ends_with(['.', '?', '!', ']']) { text } else { format!("{text}.") }
}

/// A text in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
