//! What a failure was about: rules over the enhanced status code and the words of a reply, as data (`bounces.toml`).

use std::sync::{Arc, OnceLock};

use mail::{BounceClass, Disposition, Outcome};
use pattern::{DataError, ReplyPattern, ReplyText, Table, meant};

/// An operator's file of bounce rules is wrong: line, what, and what was meant.
pub type ClassifierError = DataError;

const BUILTIN: &str = include_str!("../bounces.toml");

/// Bounce rules, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    /// In the order in which they are asked; the first that matches decides.
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: Arc<str>,
    /// Empty: any host.
    providers: Vec<Box<str>>,
    /// It is about outcomes that no peer spoke of.
    own: bool,
    class: BounceClass,
    pattern: ReplyPattern,
}

impl Classifier {
    /// The rules that are built in.
    ///
    /// # Panics
    /// Never: the tests read the same rules.
    pub fn builtin() -> Arc<Self> {
        static READ: OnceLock<Arc<Classifier>> = OnceLock::new();
        READ.get_or_init(|| {
            Arc::new(Self::default().with(BUILTIN).expect("the rules built in are read by the tests"))
        })
        .clone()
    }

    /// These rules with an operator's file before them. A rule of the same name takes the place of the one known; `off =
    /// true` with a name alone takes that away.
    ///
    /// # Errors
    /// Something in the file is wrong; the first mistake is told with its line.
    pub fn with(&self, operators_toml: &str) -> Result<Self, ClassifierError> {
        let mut root = Table::parse(operators_toml)?;
        let mut known = self.rules.clone();
        let mut rules: Vec<Rule> = Vec::new();
        for mut table in root.tables("rule")? {
            let Some(name) = table.text("name")?.filter(|name| !name.is_empty()) else {
                return Err(table.error("a rule needs a `name`: another file can replace it by that"));
            };
            let at = known.iter().position(|rule| *rule.name == *name);
            if table.flag("off")? {
                if at.is_none() {
                    let names: Vec<&str> = known.iter().map(|rule| &*rule.name).collect();
                    let mut error = table.error(format!("no rule has the name {name:?}, so it can't be off"));
                    error.help = Some(meant(&name, &names));
                    return Err(error);
                }
            } else if rules.iter().any(|rule| *rule.name == *name) {
                return Err(table.error(format!("there are two rules with the name {name:?}")));
            } else {
                rules.push(Rule::take(name.into(), &mut table)?);
            }
            if let Some(at) = at {
                known.remove(at);
            }
            table.finish()?;
        }
        root.finish()?;
        rules.append(&mut known);
        Ok(Self { rules })
    }

    /// What a failed outcome was about; `provider` is the provider whose host answered, if it is known as one.
    ///
    /// A deferral is never of the class [`BounceClass::Recipient`]: who defers is not sure itself.
    pub fn classify(&self, outcome: &Outcome, provider: Option<&str>) -> BounceClass {
        self.explain(outcome, provider).0
    }

    /// The same with the name of the rule that decided.
    pub fn explain(&self, outcome: &Outcome, provider: Option<&str>) -> (BounceClass, &str) {
        let reply = ReplyText::without_addresses(outcome);
        let own = outcome.code.is_none();
        let found = self.rules.iter().find(|rule| {
            rule.own == own
                && (rule.providers.is_empty()
                    || provider.is_some_and(|p| rule.providers.iter().any(|r| **r == *p)))
                && rule.pattern.matches(&reply)
        });
        let fallback = if own { BounceClass::Network } else { BounceClass::Policy };
        let (class, name) = found.map_or((fallback, "none"), |rule| (rule.class, &rule.name));
        if class.suppresses() && outcome.disposition != Disposition::Refused {
            (fallback, name)
        } else {
            (class, name)
        }
    }
}

impl Rule {
    fn take(name: Arc<str>, table: &mut Table<'_>) -> Result<Self, DataError> {
        let words = BounceClass::ALL.map(BounceClass::as_str);
        let class = table.one_of("class", &words)?.and_then(|word| word.parse().ok());
        let Some(class) = class else {
            return Err(table.error(format!("a rule needs a `class`: {}", words.join(", "))));
        };
        Ok(Self {
            name,
            providers: table.texts("providers")?.into_iter().map(Box::from).collect(),
            own: table.flag("own")?,
            class,
            pattern: ReplyPattern::take(table)?,
        })
    }
}
