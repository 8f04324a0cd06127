//! What destinations said about local recipients, remembered for a while. The asking itself is done by who owns the
//! connections.

use std::collections::HashMap;
use std::time::Duration;

use mail::{Address, Mono};
use parking_lot::Mutex;

use crate::policy::key;

/// The most recipients that are remembered.
const ENTRIES_MAX: usize = 100_000;
/// How long a recipient that exists is not asked about again.
const EXISTS: Duration = Duration::from_secs(3600);
/// How long one that exists is still believed while the destination cannot be asked.
const EXISTS_STALE: Duration = Duration::from_secs(7 * 86_400);
/// How long a recipient that does not exist is not asked about again. Short: it may just have been made.
const UNKNOWN: Duration = Duration::from_secs(600);
/// How long a destination that could not be asked is left alone.
const UNSURE: Duration = Duration::from_secs(15);

/// A destination's word about a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callout {
    /// It would take mail for it.
    Exists,
    /// It would not (5xx), and these were its words.
    Unknown(String),
    /// It could not be asked or would not say (4xx), for this reason.
    Unsure(String),
}

/// What is remembered about a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// Nothing, or not fresh: ask, and give the answer to [`CalloutCache::put`].
    Ask,
    /// This, fresh enough.
    Known(Callout),
}

/// The memory. Bounded; shared by all sessions.
#[derive(Debug, Default)]
pub struct CalloutCache {
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    answer: Callout,
    /// When it has to be asked again.
    ask_at: Mono,
    /// Until when it is believed to exist while nobody can tell.
    exists_until: Option<Mono>,
}

impl CalloutCache {
    /// What is known about this recipient.
    pub fn get(&self, recipient: &Address, now: Mono) -> Cached {
        match self.entries.lock().get(&key(recipient)) {
            Some(entry) if now < entry.ask_at => Cached::Known(entry.answer.clone()),
            _ => Cached::Ask,
        }
    }

    /// Takes what the destination said, and gives what it means: one that was there before is still believed to be
    /// while the destination cannot be asked.
    pub fn put(&self, recipient: &Address, said: Callout, now: Mono) -> Callout {
        let mut entries = self.entries.lock();
        let name = key(recipient);
        let believed = entries.get(&name).and_then(|e| e.exists_until).filter(|until| now < *until);
        let (answer, fresh, exists_until) = match said {
            Callout::Exists => (Callout::Exists, EXISTS, Some(now.plus(EXISTS_STALE))),
            Callout::Unknown(why) => (Callout::Unknown(why), UNKNOWN, None),
            Callout::Unsure(_) if believed.is_some() => (Callout::Exists, UNSURE, believed),
            Callout::Unsure(why) => (Callout::Unsure(why), UNSURE, None),
        };
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(&name) {
            make_room(&mut entries, now);
        }
        entries.insert(name, Entry { answer: answer.clone(), ask_at: now.plus(fresh), exists_until });
        answer
    }
}

/// Drops what is of no use any more; when that is not a quarter, those that must be asked again soonest.
fn make_room(entries: &mut HashMap<String, Entry>, now: Mono) {
    entries.retain(|_, e| now < e.ask_at || e.exists_until.is_some_and(|until| now < until));
    let keep = ENTRIES_MAX / 4 * 3;
    if entries.len() > keep {
        let mut times: Vec<Mono> = entries.values().map(|e| e.ask_at).collect();
        let cut = times.len() - keep;
        let (_, oldest_kept, _) = times.select_nth_unstable(cut);
        let oldest_kept = *oldest_kept;
        entries.retain(|_, e| e.ask_at > oldest_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn answers_age() {
        let cache = CalloutCache::default();
        let ann = Address::parse("Ann@example.com").unwrap();
        let same = Address::parse("ann@EXAMPLE.com").unwrap();
        assert_eq!(cache.get(&ann, at(0)), Cached::Ask);
        cache.put(&ann, Callout::Exists, at(0));
        assert_eq!(cache.get(&same, at(3599)), Cached::Known(Callout::Exists));
        assert_eq!(cache.get(&same, at(3600)), Cached::Ask);

        let nobody = Address::parse("nobody@example.com").unwrap();
        cache.put(&nobody, Callout::Unknown("no".into()), at(0));
        assert_eq!(cache.get(&nobody, at(599)), Cached::Known(Callout::Unknown("no".into())));
        assert_eq!(cache.get(&nobody, at(600)), Cached::Ask);
    }

    #[test]
    fn who_existed_is_believed_while_the_destination_is_down() {
        let cache = CalloutCache::default();
        let ann = Address::parse("ann@example.com").unwrap();
        let down = || Callout::Unsure("connection refused".into());
        cache.put(&ann, Callout::Exists, at(0));
        assert_eq!(cache.put(&ann, down(), at(4000)), Callout::Exists);
        assert_eq!(cache.put(&ann, down(), at(8000)), Callout::Exists);
        assert_eq!(cache.put(&ann, down(), at(7 * 86_400)), down());
        let new = Address::parse("new@example.com").unwrap();
        assert_eq!(cache.put(&new, down(), at(0)), down());
        assert_eq!(cache.put(&new, Callout::Unknown("gone".into()), at(20)), Callout::Unknown("gone".into()));
        assert_eq!(cache.put(&new, down(), at(1000)), down());
    }

    #[test]
    fn memory_is_bounded() {
        let cache = CalloutCache::default();
        for n in 0..ENTRIES_MAX + 10 {
            let name = Address::parse(&format!("u{n}@example.com")).unwrap();
            cache.put(&name, Callout::Unknown(String::new()), at(n as u64 / 1000));
        }
        let entries = cache.entries.lock().len();
        assert!(entries <= ENTRIES_MAX && entries > ENTRIES_MAX / 2, "{entries}");
    }
}
