//! Signing keys as a text file: one key a line, the first signs, all of them verify. The same form as postsrsd's secret
//! file, so that who changes over can bring the keys along.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand;

/// Octets in a key that is made here.
const MADE_OCTETS: usize = 32;
/// The fewest characters that a line may have to be taken for a secret.
const LENGTH_MIN: usize = 16;
/// The most keys that are tried; each costs a MAC per address that is looked at.
const KEYS_MAX: usize = 16;

/// The keys that return paths and rewritten senders are signed with. Cheap to clone; never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(Arc<[Box<str>]>);

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// The file has no key.
    #[error("the key file holds no key; remove it and a new one is made")]
    Empty,
    /// A key is too short to be a secret.
    #[error(
        "line {line} of the key file is shorter than {LENGTH_MIN} characters, which is too short for a secret"
    )]
    Short {
        /// Which line, from 1.
        line: usize,
    },
    /// More keys than are tried.
    #[error("the key file holds more than {KEYS_MAX} keys; remove old ones from its end")]
    TooMany,
    /// The system gave no random octets.
    #[error("the system gave no random numbers to make a key from")]
    NoRandom,
}

impl Keys {
    /// One new key of 256 random bits.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn make() -> Result<Self, KeysError> {
        Ok(Self([new_key()?].into()))
    }

    /// The keys that a file holds. Empty lines and lines that begin with `#` are left out.
    ///
    /// # Errors
    /// There is no key in it, one is too short, or there are too many.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.len() < LENGTH_MIN {
                return Err(KeysError::Short { line: number + 1 });
            }
            keys.push(line.into());
        }
        match keys.len() {
            0 => Err(KeysError::Empty),
            1..=KEYS_MAX => Ok(Self(keys.into())),
            _ => Err(KeysError::TooMany),
        }
    }

    /// The keys in `text`, or new ones where there is no file yet; with the text to write when they are new.
    ///
    /// # Errors
    /// What is there can't be used, or nothing can be made.
    pub fn load_or_make(text: Option<&str>) -> Result<(Self, Option<String>), KeysError> {
        if let Some(text) = text {
            return Ok((Self::parse(text)?, None));
        }
        let keys = Self::make()?;
        let text = keys.to_text();
        Ok((keys, Some(text)))
    }

    /// These keys with a new one in front, which signs from now on; `keep` of those before still verify.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn rotated(&self, keep: usize) -> Result<Self, KeysError> {
        let mut keys = vec![new_key()?];
        keys.extend(self.0.iter().take(keep.min(KEYS_MAX - 1)).cloned());
        Ok(Self(keys.into()))
    }

    /// The file's text. Secret: the file is for its owner's eyes (mode 0600).
    pub fn to_text(&self) -> String {
        let mut text = "# Signs return paths and rewritten senders. One key a line: the first signs, all verify.\n\
                        # Keep it secret. To change it, put a new line on top and drop the last one a month later.\n"
            .to_owned();
        for key in self.0.iter() {
            text.push_str(key);
            text.push('\n');
        }
        text
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The key that signs.
    pub(crate) fn current(&self) -> &[u8] {
        self.0.first().map_or(&[], |key| key.as_bytes())
    }

    /// Every key that verifies, the newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|key| key.as_bytes())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

fn new_key() -> Result<Box<str>, KeysError> {
    let mut octets = [0u8; MADE_OCTETS];
    rand::fill(&mut octets).map_err(|_| KeysError::NoRandom)?;
    Ok(data_encoding::BASE64_NOPAD.encode(&octets).into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_as_it_was_written() {
        let keys = Keys::make().unwrap();
        assert_eq!(Keys::parse(&keys.to_text()), Ok(keys.clone()));
        assert_eq!(keys.current().len(), 43, "256 bits in base64");
        assert_ne!(keys, Keys::make().unwrap());
        assert!(!format!("{keys:?}").contains(std::str::from_utf8(keys.current()).unwrap()));
    }

    #[test]
    fn a_new_key_signs_and_the_old_ones_still_verify() {
        let first = Keys::make().unwrap();
        let second = first.rotated(1).unwrap();
        assert_ne!(second.current(), first.current());
        assert!(second.all().any(|k| k == first.current()));
        let third = second.rotated(1).unwrap();
        assert_eq!(third.count(), 2);
        assert!(!third.all().any(|k| k == first.current()), "out of use");
    }

    #[test]
    fn made_once_and_then_read() {
        let (made, text) = Keys::load_or_make(None).unwrap();
        let text = text.unwrap();
        assert_eq!(Keys::load_or_make(Some(&text)), Ok((made, None)));
    }

    #[test]
    fn what_is_no_key_file() {
        assert_eq!(Keys::parse("# nothing\n\n"), Err(KeysError::Empty));
        assert_eq!(Keys::parse("0123456789abcdef\nshort\n"), Err(KeysError::Short { line: 2 }));
        assert_eq!(Keys::parse(&"0123456789abcdef\n".repeat(17)), Err(KeysError::TooMany));
    }
}
