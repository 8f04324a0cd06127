//! Rules about what leaves and how: outgoing addresses, pools, bounds, TLS policies, aliases, suspensions. The same types
//! are read from the config file, kept in the directory and shown by the API. Those of the config file come first and
//! are changed there.

mod address;
mod outgoing;
mod store;
mod suspension;
mod tls;
mod traffic;
mod values;

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use address::{Alias, Rewrite, RewriteOf};
pub use mail::{Rate, RateError};
pub use outgoing::{Egress, Pool, Source, Warmup};
pub use store::ConfigRules;
pub use suspension::Suspension;
pub use tls::TlsPolicy;
pub use traffic::{Ceiling, CeilingOf, Shape};
pub use values::{Day, Proxy, ProxyKind, TextError};

pub(crate) use store::{ask, asks, user_of};

use crate::routing::Source as Kept;
use crate::secret::Secret;
use crate::snapshot::Snapshot;

/// What is wrong with a rule by itself, and in which of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The key: `plan`, `domains[1]`; empty for the rule as a whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead; may be empty.
    pub help: &'static str,
}

impl Wrong {
    fn new(key: impl Into<String>, what: impl Into<String>, help: &'static str) -> Self {
        Self { key: key.into(), what: what.into(), help }
    }
}

/// What a rule may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// An organisation.
    Org,
    /// A login.
    Credential,
    /// A source.
    Source,
    /// A pool.
    Pool,
    /// A smart host.
    SmartHost,
}

/// Something that a rule names and that has to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// The key it stands in.
    pub key: String,
    /// What it is.
    pub what: Named,
    /// Its name.
    pub name: String,
}

impl Mention {
    fn new(key: impl Into<String>, what: Named, name: impl Into<String>) -> Self {
        Self { key: key.into(), what, name: name.into() }
    }
}

/// A kind of rule.
pub trait Rule:
    Kind + Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What it is called, in messages and in the log of changes.
    const KIND: &'static str;
    /// Whether it has a name that others call it by; otherwise it is known by a number.
    const NAMED: bool = false;

    /// What is wrong with it by itself.
    ///
    /// # Errors
    /// The first thing that is wrong.
    fn check(&self) -> Result<(), Wrong>;

    /// What it names.
    fn mentions(&self) -> Vec<Mention> {
        Vec::new()
    }

    /// Whether the two cannot both be there.
    fn clashes(&self, _other: &Self) -> bool {
        false
    }

    /// Takes the secret out, to be kept apart from what is shown.
    fn take_secret(&mut self) -> Option<Secret> {
        None
    }

    /// Puts the secret back.
    fn put_secret(&mut self, _secret: Option<Secret>) {}
}

/// A rule and where it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry<R> {
    /// Its name; else its number in the directory, or `config-1` for the first one of the config file.
    pub id: Arc<str>,
    /// Where it is kept, and so where it is changed.
    pub kept: Kept,
    /// What it says.
    #[serde(flatten)]
    pub rule: R,
}

/// All rules of a kind.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
pub struct Rules<R> {
    pub(crate) config: Arc<[Arc<Entry<R>>]>,
    pub(crate) directory: Arc<[Arc<Entry<R>>]>,
}

impl<R> Default for Rules<R> {
    fn default() -> Self {
        Self { config: Arc::new([]), directory: Arc::new([]) }
    }
}

/// The rules of all kinds.
#[doc(hidden)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllRules {
    pub(crate) sources: Rules<Source>,
    pub(crate) pools: Rules<Pool>,
    pub(crate) egress: Rules<Egress>,
    pub(crate) shapes: Rules<Shape>,
    pub(crate) ceilings: Rules<Ceiling>,
    pub(crate) tls_policies: Rules<TlsPolicy>,
    pub(crate) aliases: Rules<Alias>,
    pub(crate) rewrites: Rules<Rewrite>,
    pub(crate) suspensions: Rules<Suspension>,
}

/// Says where a kind of rule is among all of them.
macro_rules! kept_in {
    ($($rule:ty => $field:ident),* $(,)?) => {$(
        impl Kind for $rule {
            fn rules(all: &AllRules) -> &Rules<Self> {
                &all.$field
            }
            fn rules_mut(all: &mut AllRules) -> &mut Rules<Self> {
                &mut all.$field
            }
        }
    )*};
}

impl AllRules {
    /// Takes over what another one has of the config file.
    pub(crate) fn take_config_of(&mut self, other: &Self) {
        self.sources.config = Arc::clone(&other.sources.config);
        self.pools.config = Arc::clone(&other.pools.config);
        self.egress.config = Arc::clone(&other.egress.config);
        self.shapes.config = Arc::clone(&other.shapes.config);
        self.ceilings.config = Arc::clone(&other.ceilings.config);
        self.tls_policies.config = Arc::clone(&other.tls_policies.config);
        self.aliases.config = Arc::clone(&other.aliases.config);
        self.rewrites.config = Arc::clone(&other.rewrites.config);
        self.suspensions.config = Arc::clone(&other.suspensions.config);
    }
}

/// Where a kind of rule is among all of them.
#[doc(hidden)]
pub trait Kind: Sized {
    /// To read.
    fn rules(all: &AllRules) -> &Rules<Self>;
    /// To change.
    fn rules_mut(all: &mut AllRules) -> &mut Rules<Self>;
}

kept_in! {
    Source => sources,
    Pool => pools,
    Egress => egress,
    Shape => shapes,
    Ceiling => ceilings,
    TlsPolicy => tls_policies,
    Alias => aliases,
    Rewrite => rewrites,
    Suspension => suspensions,
}

impl Snapshot {
    /// All rules of a kind: those of the config file in its order, then those of the directory in theirs. One of the
    /// config file hides one of the same name in the directory.
    pub fn rules<R: Rule>(&self) -> impl Iterator<Item = &Arc<Entry<R>>> {
        let Rules { config, directory } = R::rules(&self.rules);
        let hidden = |it: &&Arc<Entry<R>>| R::NAMED && config.iter().any(|c| c.id == it.id);
        config.iter().chain(directory.iter().filter(move |it| !hidden(it)))
    }

    /// A rule by its name or number.
    pub fn rule<R: Rule>(&self, id: &str) -> Option<&Arc<Entry<R>>> {
        self.rules::<R>().find(|it| *it.id == *id)
    }
}
