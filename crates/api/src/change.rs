//! Changes of many deliveries at once: hold, release, retry, reroute, remove. Each is on record.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use mail::{DeliveryId, Destination};
use store::{Action, QueueEntry, QueueFilter};

use crate::control::Control;
use crate::extract::{Actor, Json};
use crate::problem::Problem;
use crate::routing::{check_template, known_smarthost};
use crate::types::{LIMIT_MAX, QueueAction, QueueChange, QueueChanged};
use crate::wanted::{TEXT_MAX, Wanted, wanted};

pub(crate) async fn change<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Path(action): Path<String>,
    Json(ask): Json<QueueChange>,
) -> Result<axum::Json<QueueChanged>, Problem> {
    if ask.filter.is_empty() && !ask.all {
        return Err(Problem::invalid(
            "without a filter this would change every delivery: give a filter, or say `all`",
        ));
    }
    let mut wanted = wanted(&control, &ask.filter)?;
    let dry_run = ask.dry_run;
    let mut done = QueueChanged { dry_run, ..QueueChanged::default() };
    let to_mx = action == QueueAction::Reroute.as_str() && ask.to.as_deref() == Some("mx");
    let result = if to_mx {
        reroute_to_mx(&control, wanted, &by, &mut done).await
    } else {
        let action = action_of(&action, &ask)?;
        if let Action::Reroute { to: Destination::SmartHost(name) } = &action {
            known_smarthost(&control, name)?;
        }
        if wanted.path.is_any() {
            apply(&control, wanted.filter, action, &by, &mut done).await
        } else {
            apply_on_path(&control, &mut wanted, action, &by, &mut done).await
        }
    };
    if !dry_run && done.changed > 0 {
        record(&control, &action, &ask, &done, &by).await?;
    }
    result.map(|()| axum::Json(done))
}

/// Puts what was done on record, also what was done before something went wrong.
async fn record<C: Control>(
    control: &C,
    action: &str,
    ask: &QueueChange,
    done: &QueueChanged,
    by: &mail::Actor,
) -> Result<(), Problem> {
    let word = serde_json::from_value::<QueueAction>(action.into()).map_or("change", QueueAction::as_str);
    let detail = serde_json::json!({
        "filter": ask.filter,
        "all": ask.all,
        "reason": ask.reason,
        "to": ask.to,
        "changed": done.changed,
        "in_flight": done.in_flight,
        "elsewhere": done.elsewhere,
        "skipped": done.skipped,
    });
    let name = ask.filter.words();
    Ok(control.directory().record(by, word, ("queue", name), detail).await?)
}

/// As [`apply`], for deliveries that only the scheduler and the rules can tell from others.
async fn apply_on_path<C: Control>(
    control: &C,
    wanted: &mut Wanted,
    action: Action,
    by: &mail::Actor,
    done: &mut QueueChanged,
) -> Result<(), Problem> {
    let mut after = None;
    loop {
        let found = control.store().search(wanted.filter.clone(), after, LIMIT_MAX).await?;
        let on_path = found.iter().filter(|entry| wanted.path.has(control, entry));
        let deliveries: Vec<DeliveryId> = on_path.map(|entry| entry.id).collect();
        if !deliveries.is_empty() {
            let these = QueueFilter { deliveries, ..QueueFilter::default() };
            apply(control, these, action.clone(), by, done).await?;
        }
        after = found.last().map(|entry| entry.id);
        if found.len() < LIMIT_MAX {
            return Ok(());
        }
    }
}

async fn apply<C: Control>(
    control: &C,
    filter: QueueFilter,
    action: Action,
    by: &mail::Actor,
    done: &mut QueueChanged,
) -> Result<(), Problem> {
    // Part by part: a queue may be longer than what should be in memory at once.
    let mut after = None;
    loop {
        let (changed, next) = control.store().change_part(&filter, &action, by, done.dry_run, after).await?;
        done.changed += changed.len() as u64;
        done.elsewhere += changed.iter().filter(|delivery| delivery.elsewhere.is_some()).count() as u64;
        if !done.dry_run {
            done.in_flight += control.apply(action.clone(), changed).await;
        }
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Sends deliveries to the mail exchangers of their recipients' domain. What the sandbox or a smart host was to take may
/// have recipients in several domains; those are left alone, as there is no host that serves them all.
async fn reroute_to_mx<C: Control>(
    control: &C,
    mut wanted: Wanted,
    by: &mail::Actor,
    done: &mut QueueChanged,
) -> Result<(), Problem> {
    let mut after = None;
    loop {
        let found = control.store().search(wanted.filter.clone(), after, LIMIT_MAX).await?;
        let mut by_domain: BTreeMap<String, Vec<DeliveryId>> = BTreeMap::new();
        for entry in &found {
            if !wanted.path.has(control, entry) {
                continue;
            }
            match only_domain(entry) {
                Some(domain) => by_domain.entry(domain.to_owned()).or_default().push(entry.id),
                None => done.skipped += 1,
            }
        }
        for (domain, deliveries) in by_domain {
            let these = QueueFilter { deliveries, ..QueueFilter::default() };
            let to = Destination::Mx(domain.into());
            apply(control, these, Action::Reroute { to }, by, done).await?;
        }
        after = found.last().map(|entry| entry.id);
        if found.len() < LIMIT_MAX {
            return Ok(());
        }
    }
}

/// The domain of the recipients that are not settled, if they have but one.
fn only_domain(entry: &QueueEntry) -> Option<&str> {
    let mut open = entry.recipients.iter().filter(|(_, _, status)| !status.is_final());
    let first = open.next()?.1.address.domain();
    open.all(|(_, who, _)| who.address.domain() == first).then_some(first)
}

fn action_of(name: &str, ask: &QueueChange) -> Result<Action, Problem> {
    let known = serde_json::from_value::<QueueAction>(name.into());
    let action =
        known.map_err(|_| Problem::not_found("actions are hold, release, retry, reroute and remove"))?;
    if ask.to.is_some() && action != QueueAction::Reroute {
        return Err(Problem::invalid(format!("`to` has no meaning for {}", action.as_str())));
    }
    if ask.reason.as_ref().is_some_and(|r| r.len() > TEXT_MAX || r.chars().any(char::is_control)) {
        return Err(Problem::invalid("a reason is one line of 1000 octets at most"));
    }
    Ok(match action {
        QueueAction::Hold => {
            Action::Hold { reason: ask.reason.clone().unwrap_or_else(|| "held by an operator".into()) }
        }
        QueueAction::Release => Action::Release,
        QueueAction::Retry => Action::Retry,
        QueueAction::Remove => Action::Remove,
        QueueAction::Reroute => {
            let to = ask
                .to
                .as_deref()
                .ok_or_else(|| Problem::invalid("reroute needs `to`, as a route says it"))?;
            let to = to.parse::<Destination>().map_err(|e| Problem::invalid(e.to_string()))?;
            if let Destination::Mx(domain) = &to
                && mail::domain_to_ascii(domain).is_none()
            {
                return Err(Problem::invalid(format!("{domain:?} is no domain")));
            }
            if let Destination::Maildir(path) = &to {
                check_template(path)?;
            }
            Action::Reroute { to }
        }
    })
}
