//! The way from one recipient of an envelope over aliases and patterns to where it ends.

use std::collections::HashSet;

use mail::{Address, EnhancedStatus, OrgId};

use crate::rewrite::expand::{LOOP, MISCONFIGURED, Rewriter, folded};
use crate::rewrite::rules::{AliasTo, Rewrite};

/// Addresses looked at for each recipient that may be made: bounds the work on aliases that lead to each other.
const LOOKS_PER_RECIPIENT: usize = 10;

/// What a rule makes of an address.
pub(crate) enum Next<'a> {
    Alias(&'a [AliasTo]),
    Pattern(&'a Rewrite, Result<Address, String>),
}

/// Why a recipient can't be expanded.
pub(crate) enum Stop {
    TooDeep(String),
    TooMany,
    NoAddress(String),
}

impl Stop {
    pub(crate) fn told(self, address: &Address, rewriter: &Rewriter) -> (EnhancedStatus, String) {
        match self {
            Stop::TooDeep(way) => {
                let depth = rewriter.depth;
                (LOOP, format!("aliases for {address} lead on more than {depth} times: {way}"))
            }
            Stop::TooMany => {
                let most = rewriter.recipients_max;
                let words = format!("aliases make more than {most} recipients of this message at {address}");
                (MISCONFIGURED, words)
            }
            Stop::NoAddress(words) => (MISCONFIGURED, words),
        }
    }
}

/// The way from one recipient of the envelope.
pub(crate) struct Walk<'a> {
    rewriter: &'a Rewriter,
    org: Option<OrgId>,
    room: usize,
    looks_left: usize,
    /// The aliases followed to where we are, each with whether it names itself.
    chain: Vec<(Box<str>, bool)>,
    /// The patterns used on the way to where we are.
    used: Vec<&'a Rewrite>,
    /// Everything that was looked at, so that nothing is twice.
    seen: HashSet<Box<str>>,
    pub(crate) found: Vec<Address>,
    taken: HashSet<Address>,
    pub(crate) loops: Vec<String>,
    pub(crate) matched: bool,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(rewriter: &'a Rewriter, org: Option<OrgId>, room: usize) -> Self {
        Self {
            rewriter,
            org,
            room,
            looks_left: rewriter.recipients_max.saturating_mul(LOOKS_PER_RECIPIENT).max(LOOKS_PER_RECIPIENT),
            chain: Vec::new(),
            used: Vec::new(),
            seen: HashSet::new(),
            found: Vec::new(),
            taken: HashSet::new(),
            loops: Vec::new(),
            matched: false,
        }
    }

    pub(crate) fn visit(&mut self, address: &Address) -> Result<(), Stop> {
        self.looks_left = self.looks_left.checked_sub(1).ok_or(Stop::TooMany)?;
        let key = folded(address);
        if let Some((_, names_itself)) = self.chain.iter().find(|(alias, _)| *alias == key) {
            // One that names itself is delivered to anyway.
            if !names_itself {
                self.loops.push(self.way(address));
            }
            return Ok(());
        }
        let (targets, pattern) = match self.rewriter.next(self.org, address, &self.used) {
            None => return self.take(address),
            Some(Next::Alias(to)) => (to.iter().filter_map(|to| target(to, address)).collect(), None),
            Some(Next::Pattern(rule, result)) => (vec![result.map_err(Stop::NoAddress)?], Some(rule)),
        };
        self.matched = true;
        if !self.seen.insert(key.clone()) {
            return Ok(());
        }
        if self.chain.len() >= self.rewriter.depth {
            return Err(Stop::TooDeep(self.way(address)));
        }
        self.follow(key, &targets, pattern)
    }

    fn follow(
        &mut self,
        key: Box<str>,
        targets: &[Address],
        pattern: Option<&'a Rewrite>,
    ) -> Result<(), Stop> {
        let is_self = |target: &Address| folded(target) == key;
        let names_itself = targets.iter().any(is_self);
        self.chain.push((key.clone(), names_itself));
        self.used.extend(pattern);
        for target in targets {
            if is_self(target) {
                self.take(target)?;
            } else {
                self.visit(target)?;
            }
        }
        self.chain.pop();
        if pattern.is_some() {
            self.used.pop();
        }
        Ok(())
    }

    fn take(&mut self, address: &Address) -> Result<(), Stop> {
        if self.taken.insert(address.clone()) {
            // The envelope's own recipients are not counted, only what rules made.
            if self.matched && self.found.len() >= self.room {
                return Err(Stop::TooMany);
            }
            self.found.push(address.clone());
        }
        Ok(())
    }

    /// `a@x → b@x → a@x`
    fn way(&self, last: &Address) -> String {
        let mut way: Vec<&str> = self.chain.iter().map(|(alias, _)| &**alias).collect();
        way.push(last.as_str());
        way.join(" → ")
    }
}

/// The address that an alias leads to; none where the local part does not fit the new domain, which can't be: it is valid
/// already.
fn target(to: &AliasTo, from: &Address) -> Option<Address> {
    match to {
        AliasTo::Address(address) => Some(address.clone()),
        AliasTo::Domain(domain) => Address::parse(&format!("{}@{domain}", from.local())).ok(),
    }
}
