//! The dictionaries of a namespace: the one that was trained here, and those that came from peers. They
//! are kept in memory only: what is lost is trained or asked for again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use thiserror::Error;

use crate::delta::dictionary::Dictionary;
use crate::delta::error::DeltaError;
use crate::wire::messages::{BASES_MAX, BaseHint, DictionaryReply, Want};

/// Dictionaries of peers, and former ones, that are kept; the oldest goes.
const OTHERS_MAX: usize = 3;
/// Dictionaries that a message names.
const NAMED_MAX: usize = 2;
/// Bytes of small states that come without a dictionary before a peer is asked for one, which takes 3 to
/// 5 KB as a rule and saves more than half of what comes after it.
const ASK_AFTER: u64 = 8 << 10;
/// Peers that had none are asked ever more seldom, down to once in so many bytes.
const ASK_SELDOM: u64 = 1 << 20;
/// Bytes of states between two looks at whether a dictionary still pays.
const LOOK_EVERY: usize = 64 << 10;

/// Why a peer's dictionary was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DictionaryError {
    /// Its bytes are not those of the hash.
    #[error("the peer's dictionary does not have the hash that it is named by")]
    WrongHash,
    /// It cannot be used.
    #[error("the peer's dictionary cannot be used: {0}")]
    Unusable(#[from] DeltaError),
}

/// What is said about the dictionaries of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DictionaryStatus {
    /// The one that is used and given to peers, by its SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Its length in bytes.
    pub bytes: usize,
    /// How many others are kept, of peers and former ones.
    pub others: usize,
}

/// The dictionaries.
#[derive(Debug)]
pub struct Dictionaries(Mutex<Shelf>);

#[derive(Debug)]
struct Shelf {
    trained: Option<Arc<Dictionary>>,
    /// Those of peers, and former ones.
    others: VecDeque<Arc<Dictionary>>,
    /// Bytes that came without since a peer was asked last, and how many it takes to ask again.
    without: u64,
    ask_after: u64,
    /// States that were sent with a dictionary since somebody looked: their bytes, what they came to,
    /// and what they would have come to without.
    used: [usize; 3],
    is_poor: bool,
}

impl Default for Dictionaries {
    fn default() -> Self {
        Self(Mutex::new(Shelf {
            trained: None,
            others: VecDeque::new(),
            without: 0,
            ask_after: ASK_AFTER,
            used: [0; 3],
            is_poor: false,
        }))
    }
}

impl Dictionaries {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that peers get: trained here, or else the newest that came.
    pub fn current(&self) -> Option<Arc<Dictionary>> {
        self.shelf().held().next().cloned()
    }

    /// Takes the place of the one that was trained before. That one is kept for peers that have it, unless it
    /// did poorly.
    pub fn replace(&self, trained: Dictionary) {
        let mut shelf = self.shelf();
        let before = shelf.trained.replace(Arc::new(trained));
        if let Some(before) = before.filter(|_| !shelf.is_poor) {
            shelf.keep(before);
        }
        (shelf.used, shelf.is_poor) = ([0; 3], false);
    }

    /// What is to be said about them.
    pub fn status(&self) -> DictionaryStatus {
        let current = self.current();
        DictionaryStatus {
            bytes: current.as_ref().map_or(0, |held| held.bytes().len()),
            current: current.map(|held| held.hash().to_hex()),
            others: self.shelf().others.len(),
        }
    }

    /// Tells the sender of some versions, at the first of them, which dictionaries are here. `None` of
    /// them is named when no version is short and without a base.
    pub fn announce(&self, wants: &mut [Want], is_of_use: bool) {
        let Some(first) = wants.first_mut().filter(|_| is_of_use) else {
            return;
        };
        let shelf = self.shelf();
        let room = BASES_MAX.saturating_sub(first.bases.len()).min(NAMED_MAX);
        let held = shelf.held().take(room);
        first.bases.extend(held.map(|held| named(held)));
    }

    /// The dictionary that is named at the first of some versions, with its place there.
    pub fn common(&self, wants: &[Want]) -> Option<(u8, Arc<Dictionary>)> {
        let bases = &wants.first()?.bases;
        let shelf = self.shelf();
        let mut places = (0u8..).zip(bases);
        places.find_map(|(place, hint)| {
            let held = shelf.held().find(|held| named(held) == *hint)?;
            Some((place, Arc::clone(held)))
        })
    }

    /// The dictionary of a name.
    pub fn named(&self, hint: &BaseHint) -> Option<Arc<Dictionary>> {
        let shelf = self.shelf();
        shelf.held().find(|held| named(held) == *hint).cloned()
    }

    /// Counts what came without a dictionary. True when it is time to ask a peer for one.
    pub fn missed(&self, bytes: u64) -> bool {
        let mut shelf = self.shelf();
        shelf.without += bytes;
        shelf.without >= shelf.ask_after
    }

    /// Names of those that need not be sent.
    pub fn names(&self) -> Vec<u64> {
        let shelf = self.shelf();
        shelf.held().map(|held| held.hash().prefix64()).collect()
    }

    /// Answers a peer that holds some.
    pub fn give(&self, held: &[u64]) -> (DictionaryReply, Vec<u8>) {
        let current = self.current();
        let lacking = current.filter(|current| !held.contains(&current.hash().prefix64()));
        let reply = DictionaryReply {
            hash: lacking.as_ref().map(|dictionary| *dictionary.hash()),
        };
        let bytes = lacking.map(|dictionary| dictionary.bytes().to_vec());
        (reply, bytes.unwrap_or_default())
    }

    /// Keeps what a peer has answered, once it is checked.
    ///
    /// # Errors
    /// [`DictionaryError`] when it is not what it is said to be; nothing is kept then.
    pub fn take(&self, reply: &DictionaryReply, bytes: Vec<u8>) -> Result<(), DictionaryError> {
        let mut shelf = self.shelf();
        shelf.without = 0;
        let Some(hash) = &reply.hash else {
            shelf.ask_after = (shelf.ask_after * 2).min(ASK_SELDOM);
            return Ok(());
        };
        let dictionary = Dictionary::new(bytes)?;
        if !dictionary.hash().matches(hash) {
            return Err(DictionaryError::WrongHash);
        }
        shelf.ask_after = ASK_AFTER;
        if shelf.held().all(|held| held.hash() != hash) {
            shelf.keep(Arc::new(dictionary));
        }
        Ok(())
    }

    /// Notes how well a dictionary did, in bytes of states, with it, and without.
    pub fn note_use(&self, whole: usize, with: usize, without: usize) {
        let mut shelf = self.shelf();
        for (sum, bytes) in shelf.used.iter_mut().zip([whole, with, without]) {
            *sum += bytes;
        }
        let [whole, with, without] = shelf.used;
        if whole >= LOOK_EVERY {
            shelf.is_poor = with * 10 > without * 8;
            shelf.used = [0; 3];
        }
    }

    /// True when what was sent lately did not become much smaller.
    pub fn is_poor(&self) -> bool {
        self.shelf().is_poor
    }
}

impl Shelf {
    fn keep(&mut self, dictionary: Arc<Dictionary>) {
        self.others.push_front(dictionary);
        self.others.truncate(OTHERS_MAX);
    }

    fn held(&self) -> impl Iterator<Item = &Arc<Dictionary>> {
        self.trained.iter().chain(&self.others)
    }
}

fn named(dictionary: &Dictionary) -> BaseHint {
    BaseHint {
        state: Some(BaseHint::DICTIONARY),
        content: dictionary.hash().prefix64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::ContentHash;

    /// A dictionary of lines that differ by `name`.
    fn dictionary(name: &str) -> Dictionary {
        let state = |n: u32| format!("{name} {n}: at {}, {} of 40\n", n * 7919 % 97, n * 31 % 40);
        let states: Vec<String> = (0..400).map(state).collect();
        let samples: Vec<&[u8]> = states.iter().map(String::as_bytes).collect();
        Dictionary::train(&samples).unwrap()
    }

    fn want() -> Want {
        Want {
            state: 1,
            version: 0,
            bases: Vec::new(),
        }
    }

    #[test]
    fn two_sides_find_what_both_have() {
        let (ours, theirs) = (Dictionaries::default(), Dictionaries::default());
        let mut wants = [want()];
        ours.announce(&mut wants, true);
        assert_eq!(wants[0].bases, []);
        assert!(theirs.common(&wants).is_none());
        theirs.replace(dictionary("unit"));
        ours.replace(dictionary("city"));
        let (reply, bytes) = theirs.give(&ours.names());
        ours.take(&reply, bytes).unwrap();
        assert_eq!(theirs.give(&ours.names()).0.hash, None);
        ours.announce(&mut wants, false);
        assert_eq!(wants[0].bases, []);
        ours.announce(&mut wants, true);
        assert_eq!(wants[0].bases.len(), 2);
        let (place, common) = theirs.common(&wants).unwrap();
        assert_eq!(place, 1);
        assert_eq!(Some(*common.hash()), reply.hash);
        let named = ours.named(&wants[0].bases[1]).unwrap();
        assert_eq!(named.hash(), common.hash());
        // No room is left for more than a want may name.
        let full = vec![wants[0].bases[0].clone(); BASES_MAX];
        let mut wants = [Want {
            bases: full.clone(),
            ..want()
        }];
        ours.announce(&mut wants, true);
        assert_eq!(wants[0].bases, full);
    }

    #[test]
    fn what_is_not_what_it_is_said_to_be_is_not_kept() {
        let shelf = Dictionaries::default();
        let good = dictionary("unit");
        let reply = |hash: &ContentHash| DictionaryReply { hash: Some(*hash) };
        let other = ContentHash::of(b"something else");
        let wrong = shelf.take(&reply(&other), good.bytes().to_vec());
        assert_eq!(wrong, Err(DictionaryError::WrongHash));
        let long = vec![0; crate::delta::dictionary::DICTIONARY_MAX + 1];
        let wrong = shelf.take(&reply(&ContentHash::of(&long)), long);
        assert!(matches!(
            wrong,
            Err(DictionaryError::Unusable(DeltaError::TooLarge { .. }))
        ));
        let text = b"no dictionary".to_vec();
        let wrong = shelf.take(&reply(&ContentHash::of(&text)), text);
        assert!(matches!(
            wrong,
            Err(DictionaryError::Unusable(DeltaError::Malformed(_)))
        ));
        assert_eq!(shelf.status(), DictionaryStatus::default());
        for name in ["a", "b", "c", "d", "d", "e"] {
            let dictionary = dictionary(name);
            let taken = shelf.take(&reply(dictionary.hash()), dictionary.bytes().to_vec());
            assert_eq!(taken, Ok(()));
        }
        assert_eq!(shelf.status().others, OTHERS_MAX);
        let newest = shelf.current().unwrap();
        assert_eq!(newest.hash(), dictionary("e").hash());
    }

    #[test]
    fn peers_are_asked_for_what_pays_and_seldom_for_what_they_do_not_have() {
        let shelf = Dictionaries::default();
        assert!(!shelf.missed(ASK_AFTER - 1));
        assert!(shelf.missed(1));
        shelf
            .take(&DictionaryReply { hash: None }, Vec::new())
            .unwrap();
        assert!(!shelf.missed(2 * ASK_AFTER - 1));
        assert!(shelf.missed(1));
        shelf.note_use(LOOK_EVERY - 1, 90, 100);
        assert!(!shelf.is_poor());
        shelf.note_use(1, 0, 0);
        assert!(shelf.is_poor());
        shelf.replace(dictionary("unit"));
        assert!(!shelf.is_poor());
        shelf.note_use(LOOK_EVERY, 50, 100);
        assert!(!shelf.is_poor());
    }
}
