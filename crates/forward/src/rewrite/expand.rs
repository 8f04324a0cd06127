//! Follows aliases from the recipients of an envelope to those that they become.

use std::collections::HashMap;

use mail::{Address, EnhancedStatus, OrgId, Recipient, ReversePath};

use crate::rewrite::dsn;
use crate::rewrite::rules::{Alias, AliasFrom, AliasTo, Rewrite, RuleError, Rules};
use crate::rewrite::walk::{Next, Walk};

/// Aliases and patterns, ready for use. Large: keep it in an `Arc`.
#[derive(Clone, Debug, Default)]
pub struct Rewriter {
    global: Table,
    orgs: HashMap<OrgId, Table>,
    pub(crate) depth: usize,
    pub(crate) recipients_max: usize,
}

#[derive(Clone, Debug, Default)]
struct Table {
    /// By the folded address.
    exact: HashMap<Box<str>, Vec<AliasTo>>,
    /// By the domain.
    domains: HashMap<Box<str>, Vec<AliasTo>>,
    recipients: Vec<Rewrite>,
    senders: Vec<Rewrite>,
}

/// What an envelope turns into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The sender, rewritten or not; none is the null sender, which nothing rewrites.
    pub sender: ReversePath,
    /// Whether a pattern rewrote the sender.
    pub sender_rewritten: bool,
    /// The recipients in the order of those they come from.
    pub recipients: Vec<Expanded>,
    /// Recipients that nothing can be delivered for. Every recipient is here or in [`Expansion::recipients`].
    pub refused: Vec<Refused>,
    /// Aliases with several addresses whose sender asked to hear of success: each is owed a report with the action
    /// `expanded` (RFC 3464 section 2.3.3) when the message is accepted.
    pub opened: Vec<Opened>,
    /// What the operator should know and nothing was refused for.
    pub problems: Vec<String>,
}

/// A recipient to deliver to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// Number of the recipient in the envelope that it comes from.
    pub from: u16,
    /// Numbers of others that lead to the same address.
    pub also: Vec<u16>,
    /// Address, NOTIFY and ORCPT.
    pub recipient: Recipient,
    /// An alias or a pattern led here: the mail is forwarded, and its sender may have to be rewritten.
    pub forwarded: bool,
}

/// A recipient that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its number in the envelope.
    pub from: u16,
    /// 5.4.6 for a loop, 5.3.5 for rules that can't be followed.
    pub status: EnhancedStatus,
    /// Why, for the operator: it may name addresses that are none of a stranger's business.
    pub words: String,
}

/// An alias that a report is owed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number in the envelope.
    pub from: u16,
    /// The alias with the NOTIFY and ORCPT that it came with.
    pub alias: Recipient,
    /// How many recipients it became.
    pub count: usize,
}

impl Rewriter {
    /// Makes rules ready for use.
    ///
    /// # Errors
    /// An alias stands twice, or a limit is out of bounds.
    pub fn compile(rules: Rules) -> Result<Self, RuleError> {
        rules.check()?;
        let mut made = Self { depth: rules.depth, recipients_max: rules.recipients, ..Self::default() };
        for alias in rules.aliases {
            let name = alias.name();
            let Alias { org, from, to } = alias;
            let table = made.table_mut(org);
            let before = match from {
                AliasFrom::Address(address) => table.exact.insert(folded(&address), to),
                AliasFrom::Domain(domain) => table.domains.insert(domain, to),
            };
            if before.is_some() {
                return Err(RuleError::Twice(name));
            }
        }
        for rewrite in rules.rewrites {
            let table = made.table_mut(rewrite.org);
            if rewrite.senders {
                table.senders.push(rewrite.clone());
            }
            if rewrite.recipients {
                table.recipients.push(rewrite);
            }
        }
        Ok(made)
    }

    /// Whether there is no rule at all: nothing needs to be asked.
    pub fn is_empty(&self) -> bool {
        self.global.is_empty() && self.orgs.values().all(Table::is_empty)
    }

    /// Whether a rule speaks of this recipient: mail for it is taken here, wherever its domain's mail goes otherwise.
    pub fn speaks_of(&self, org: OrgId, address: &Address) -> bool {
        self.next(Some(org), address, &[]).is_some()
    }

    /// What an envelope turns into.
    pub fn expand(&self, org: OrgId, sender: Option<&Address>, recipients: &[Recipient]) -> Expansion {
        let mut expansion = Expansion::default();
        self.rewrite_sender(org, sender, &mut expansion);
        let mut made = 0;
        let mut opened: Vec<(u16, Vec<Address>)> = Vec::with_capacity(recipients.len());
        for (number, recipient) in recipients.iter().enumerate() {
            let from = u16::try_from(number).unwrap_or(u16::MAX);
            let room = self.recipients_max.saturating_sub(made);
            match self.open(Some(org), &recipient.address, room, &mut expansion.problems) {
                Ok(None) => opened.push((from, Vec::new())),
                Ok(Some(addresses)) => {
                    made += addresses.len();
                    opened.push((from, addresses));
                }
                Err((status, words)) => expansion.refused.push(Refused { from, status, words }),
            }
        }
        collect(recipients, opened, &mut expansion);
        expansion
    }

    /// What the operator should know of the rules: aliases that lead back to themselves or too deep, for a check of the
    /// configuration. Every alias is followed as its own organisation would.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let tables = self.orgs.iter().map(|(org, table)| (Some(*org), table)).chain([(None, &self.global)]);
        for (org, table) in tables {
            let catch_alls = table.domains.keys().map(|domain| format!("postmaster@{domain}"));
            for name in table.exact.keys().map(|name| name.to_string()).chain(catch_alls) {
                let Ok(address) = Address::parse(&name) else { continue };
                if let Err((_, words)) = self.open(org, &address, self.recipients_max, &mut warnings) {
                    warnings.push(words);
                }
            }
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }

    fn table_mut(&mut self, org: Option<OrgId>) -> &mut Table {
        match org {
            Some(org) => self.orgs.entry(org).or_default(),
            None => &mut self.global,
        }
    }

    /// The organisation's rules, then everyone's.
    fn tables(&self, org: Option<OrgId>) -> impl Iterator<Item = &Table> {
        org.and_then(|org| self.orgs.get(&org)).into_iter().chain([&self.global])
    }

    fn rewrite_sender(&self, org: OrgId, sender: Option<&Address>, expansion: &mut Expansion) {
        expansion.sender = sender.cloned();
        let Some(sender) = sender else { return };
        match self.tables(Some(org)).flat_map(|t| &t.senders).find_map(|rule| rule.apply(sender)) {
            Some(Ok(rewritten)) => {
                expansion.sender_rewritten = rewritten != *sender;
                expansion.sender = Some(rewritten);
            }
            Some(Err(words)) => expansion.problems.push(format!("the sender stays as it is: {words}")),
            None => {}
        }
    }

    /// The recipients that an address becomes; none when no rule speaks of it.
    fn open(
        &self,
        org: Option<OrgId>,
        address: &Address,
        room: usize,
        problems: &mut Vec<String>,
    ) -> Result<Option<Vec<Address>>, (EnhancedStatus, String)> {
        let mut walk = Walk::new(self, org, room);
        match walk.visit(address) {
            Err(stop) => Err(stop.told(address, self)),
            Ok(()) if !walk.matched => Ok(None),
            Ok(()) if walk.found.is_empty() => {
                let words =
                    format!("the alias {address} leads only back to itself: {}", walk.loops.join("; "));
                Err((LOOP, words))
            }
            Ok(()) => {
                problems.extend(walk.loops.iter().map(|l| format!("an alias leads back to itself: {l}")));
                Ok(Some(walk.found))
            }
        }
    }

    /// The rule for an address, without the patterns in `used`.
    pub(crate) fn next(&self, org: Option<OrgId>, address: &Address, used: &[&Rewrite]) -> Option<Next<'_>> {
        let key = folded(address);
        self.tables(org).find_map(|table| {
            if let Some(to) = table.exact.get(&key).or_else(|| table.domains.get(address.domain())) {
                return Some(Next::Alias(to));
            }
            let mut unused =
                table.recipients.iter().filter(|rule| !used.iter().any(|u| std::ptr::eq(*u, *rule)));
            unused.find_map(|rule| rule.apply(address).map(|result| Next::Pattern(rule, result)))
        })
    }
}

impl Table {
    fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.domains.is_empty()
            && self.recipients.is_empty()
            && self.senders.is_empty()
    }
}

/// Routing loop detected.
pub(crate) const LOOP: EnhancedStatus = EnhancedStatus::new(5, 4, 6);
/// System incorrectly configured.
pub(crate) const MISCONFIGURED: EnhancedStatus = EnhancedStatus::new(5, 3, 5);

/// Puts the recipients together: what is named twice because of an alias is delivered to once.
fn collect(recipients: &[Recipient], opened: Vec<(u16, Vec<Address>)>, expansion: &mut Expansion) {
    let mut at: HashMap<Address, usize> = HashMap::new();
    let plain = |from: u16| Expanded {
        from,
        also: Vec::new(),
        recipient: recipients[usize::from(from)].clone(),
        forwarded: false,
    };
    // Those that no rule speaks of come first into the map: they keep their own parameters.
    let mut slots: Vec<Expanded> = Vec::with_capacity(opened.len());
    for (from, _) in opened.iter().filter(|(_, addresses)| addresses.is_empty()) {
        at.entry(recipients[usize::from(*from)].address.clone()).or_insert(slots.len());
        slots.push(plain(*from));
    }
    for (from, addresses) in opened {
        let original = &recipients[usize::from(from)];
        let several = addresses.len() > 1;
        if several && original.notify.wants_success() {
            let alias = original.clone();
            expansion.opened.push(Opened { from, alias, count: addresses.len() });
        }
        for address in addresses {
            let recipient =
                if several { dsn::expanded(original, address) } else { dsn::forwarded(original, address) };
            if let Some(&slot) = at.get(&recipient.address) {
                let slot = &mut slots[slot];
                slot.recipient.notify = dsn::merged(slot.recipient.notify, recipient.notify);
                slot.also.push(from);
                continue;
            }
            at.insert(recipient.address.clone(), slots.len());
            // An identity alias (`a → a`, to keep an address out of a catch-all) forwards nothing.
            let forwarded = recipient.address != original.address;
            let recipient = if forwarded || several { recipient } else { original.clone() };
            slots.push(Expanded { from, also: Vec::new(), recipient, forwarded });
        }
    }
    slots.sort_by_key(|slot| slot.from);
    expansion.recipients = slots;
}

/// The address for comparing: the local part's case counts for nothing here.
pub(crate) fn folded(address: &Address) -> Box<str> {
    format!("{}@{}", address.local().to_lowercase(), address.domain()).into_boxed_str()
}

#[cfg(test)]
mod tests;
