//! Checking what `/v1/ns/{ns}/roots` gave out, without a replica: the head's signature, entries under
//! it, and that the log is still the one of an older head.

use serde::Deserialize;
use thiserror::Error;

use crate::roots::entry::RootEntry;
use crate::roots::head::{LogHead, PublicKey, SignedHead};
use crate::roots::peaks::Peaks;
use crate::roots::verify::is_included;
use crate::roots::witness::{Relation, relation};
use crate::types::hash::LogHash;
use crate::types::id::Namespace;
use crate::wire::roots::{BadRoots, ConsistencyBody, EntryBody, HeadBody, PlacedBody, hashes};

/// Most bytes of an answer that is read.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why an answer proves nothing, or proves that its replica forged something.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RootsFault {
    /// It is something else.
    #[error("it is no answer of /v1/ns/{{ns}}/roots: {0}")]
    NotRoots(String),
    /// A part of it cannot be read.
    #[error(transparent)]
    Malformed(#[from] BadRoots),
    /// There is nothing that anybody signed.
    #[error(
        "it has no signed head: the log had no entries yet, or the answer is not the newest one"
    )]
    NoHead,
    /// The signature does not hold.
    #[error("its head is not signed by the key that it names for namespace {0}")]
    NotSigned(Namespace),
    /// Somebody else signed.
    #[error("it is signed by key {0}, not by the one that was expected")]
    OtherKey(String),
    /// An entry does not lead to the head.
    #[error("entry {0} is not proven: it does not lead to the signed head")]
    NotIncluded(u64),
    /// An entry has nothing to lead it to the head.
    #[error("entry {0} comes without a proof; ask with --proofs")]
    NoProof(u64),
    /// Two heads of two logs cannot be compared.
    #[error(
        "the older head is of another log or key (log {log}, key {key}): that log does not go on here"
    )]
    OtherLog {
        /// Name of the older head's log.
        log: LogHash,
        /// Key that signed it, in hex.
        key: String,
    },
    /// The older head is the longer one.
    #[error("the head that was given as the older one has more entries ({0})")]
    NotOlder(u64),
    /// There is no proof of the right sizes.
    #[error("it has no proof that its log goes on from {0} entries; ask with --since")]
    NoConsistency(u64),
    /// The proof does not hold.
    #[error("it does not show that its log goes on from the {0} entries of the older head")]
    NotConsistent(u64),
    /// The two heads cannot both be of one honest log.
    #[error(
        "the two heads contradict each other: whoever holds key {0} signed both, and the log was \
         changed; keep both files, they prove it"
    )]
    Contradiction(String),
}

/// What an answer proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownRoots {
    /// The head, whose signature holds.
    pub head: SignedHead,
    /// Entries that are in its log, with their places.
    pub entries: Vec<(u64, RootEntry)>,
    /// Size of the older head's log, which is the beginning of this one.
    pub since: Option<u64>,
}

/// Any of the answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(alias = "own")]
    head: Option<HeadBody>,
    roots: Option<Vec<PlacedBody>>,
    consistency: Option<ConsistencyBody>,
    place: Option<u64>,
    entry: Option<EntryBody>,
    proof: Option<Vec<String>>,
    from: Option<u64>,
    to: Option<u64>,
}

/// The signed head in an answer.
///
/// # Errors
/// [`RootsFault`] when there is none, or its signature does not hold.
pub fn head_of(text: &str, namespace: &Namespace) -> Result<SignedHead, RootsFault> {
    signed(&parse(text)?, namespace)
}

/// Checks an answer: the signature of its head, by `key` if one is expected; every entry; and, if there
/// is an `older` head, that the log of that one is the beginning of this one's.
///
/// # Errors
/// [`RootsFault`] when any of it does not hold.
pub fn check_answer(
    text: &str,
    namespace: &Namespace,
    key: Option<&PublicKey>,
    older: Option<&SignedHead>,
) -> Result<ShownRoots, RootsFault> {
    let answer = parse(text)?;
    let head = signed(&answer, namespace)?;
    if key.is_some_and(|key| *key != head.key) {
        return Err(RootsFault::OtherKey(head.key.to_string()));
    }
    let mut entries = listed(answer.roots.as_deref().unwrap_or_default(), &head)?;
    if let (Some(place), Some(entry)) = (answer.place, &answer.entry) {
        let entry = RootEntry::try_from(entry)?;
        check_entry(place, &entry, answer.proof.as_ref(), &head)?;
        entries.push((place, entry));
    }
    if let Some(older) = older {
        follows(&answer, older, &head)?;
    }
    Ok(ShownRoots {
        head,
        entries,
        since: older.map(|older| older.head.size),
    })
}

fn parse(text: &str) -> Result<Answer, RootsFault> {
    serde_json::from_str(text).map_err(|error| RootsFault::NotRoots(error.to_string()))
}

fn signed(answer: &Answer, namespace: &Namespace) -> Result<SignedHead, RootsFault> {
    let head = SignedHead::try_from(answer.head.as_ref().ok_or(RootsFault::NoHead)?)?;
    if !head.is_signed(namespace) {
        return Err(RootsFault::NotSigned(namespace.clone()));
    }
    Ok(head)
}

/// The entries of a page, all of which have to be in the log.
fn listed(page: &[PlacedBody], head: &SignedHead) -> Result<Vec<(u64, RootEntry)>, RootsFault> {
    let mut entries = Vec::with_capacity(page.len());
    for placed in page {
        entries.push((placed.place, RootEntry::try_from(&placed.entry)?));
    }
    if is_whole_log(&entries, head) {
        return Ok(entries);
    }
    for (placed, (place, entry)) in page.iter().zip(&entries) {
        check_entry(*place, entry, placed.proof.as_ref(), head)?;
    }
    Ok(entries)
}

/// True when these are all entries of the log, which need no proofs.
fn is_whole_log(entries: &[(u64, RootEntry)], head: &SignedHead) -> bool {
    let mut peaks = Peaks::default();
    for (place, entry) in entries {
        if *place != peaks.size() {
            return false;
        }
        peaks.push(entry.leaf());
    }
    let hash = peaks.hash().filter(|_| peaks.size() == head.head.size);
    hash.is_some_and(|hash| hash.matches(&head.head.hash))
}

fn check_entry(
    place: u64,
    entry: &RootEntry,
    proof: Option<&Vec<String>>,
    head: &SignedHead,
) -> Result<(), RootsFault> {
    let LogHead {
        size, hash, newest, ..
    } = &head.head;
    let Some(proof) = proof else {
        // The newest one is signed as it is.
        let is_newest = place.checked_add(1) == Some(*size);
        return match is_newest && entry == newest {
            true => Ok(()),
            false if is_newest => Err(RootsFault::NotIncluded(place)),
            false => Err(RootsFault::NoProof(place)),
        };
    };
    if is_included(entry, place, *size, &hashes(proof)?, hash) {
        Ok(())
    } else {
        Err(RootsFault::NotIncluded(place))
    }
}

/// Checks that the log of an older head is the beginning of this one's.
fn follows(answer: &Answer, older: &SignedHead, head: &SignedHead) -> Result<(), RootsFault> {
    let (from, to) = match relation(older, head) {
        Relation::Same => return Ok(()),
        Relation::Contradiction => {
            return Err(RootsFault::Contradiction(older.key.to_string()));
        }
        Relation::OtherLog => {
            return Err(RootsFault::OtherLog {
                log: older.head.log,
                key: older.key.to_string(),
            });
        }
        Relation::Ask { to, .. } if to == older.head.size => {
            return Err(RootsFault::NotOlder(to));
        }
        Relation::Ask { from, to } => (from, to),
    };
    let of_page = answer.consistency.as_ref();
    let of_page = of_page.map(|proof| (proof.from, proof.to, &proof.proof));
    let own = answer.from.zip(answer.to).zip(answer.proof.as_ref());
    let own = own.map(|((from, to), proof)| (from, to, proof));
    let proof = of_page
        .or(own)
        .filter(|found| (found.0, found.1) == (from, to));
    let (_, _, proof) = proof.ok_or(RootsFault::NoConsistency(from))?;
    if older.leads_to(head, &hashes(proof)?) {
        Ok(())
    } else {
        Err(RootsFault::NotConsistent(from))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::roots::entry::log_name;
    use crate::roots::head::SecretKey;
    use crate::roots::mountains::{Nodes, consistency, inclusion, root};
    use crate::types::cursor::Epoch;
    use crate::types::hash::NodeHash;
    use crate::types::id::ReplicaId;
    use crate::wire::roots::{InclusionBody, RootsBody};

    #[derive(Default)]
    struct Log {
        nodes: BTreeMap<(u8, u64), LogHash>,
        entries: Vec<RootEntry>,
        peaks: Peaks,
    }

    impl Nodes for Log {
        type Error = Infallible;

        fn node(&self, height: u8, place: u64) -> Result<LogHash, Infallible> {
            Ok(self.nodes[&(height, place)])
        }
    }

    fn name() -> Namespace {
        Namespace::default_namespace()
    }

    impl Log {
        fn of(size: u64, edit: impl Fn(u64, &mut RootEntry)) -> Self {
            let mut log = Self::default();
            for place in 0..size {
                let mut entry = RootEntry {
                    root: NodeHash([place as u8; 32]),
                    seq: 5 * place,
                    epoch: Epoch(3),
                    incarnation: 1,
                    time: 1_700_000_000_000 + place,
                };
                edit(place, &mut entry);
                log.nodes.insert((0, place), entry.leaf());
                let above = log.peaks.push(entry.leaf());
                log.nodes
                    .extend(above.iter().map(|n| ((n.height, n.place), n.hash)));
                log.entries.push(entry);
            }
            log
        }

        fn head(&self, size: u64) -> SignedHead {
            let Ok(Some(hash)) = root(self, size) else {
                panic!("no entries");
            };
            let head = LogHead {
                replica: ReplicaId(7),
                log: log_name(Epoch(3), &self.entries[0].leaf()),
                size,
                hash,
                newest: self.entries[size as usize - 1],
            };
            SecretKey::from_seed(&[4; 32]).sign(&name(), head)
        }

        fn size(&self) -> u64 {
            self.entries.len() as u64
        }

        fn path(&self, place: u64) -> Vec<String> {
            let Ok(Some(path)) = inclusion(self, place, self.size()) else {
                panic!("no entry {place}");
            };
            path.iter().map(LogHash::to_hex).collect()
        }

        fn lead(&self, from: u64) -> ConsistencyBody {
            let Ok(Some(proof)) = consistency(self, from, self.size()) else {
                panic!("never of size {from}");
            };
            ConsistencyBody {
                from,
                to: self.size(),
                proof: proof.iter().map(LogHash::to_hex).collect(),
                head: None,
            }
        }

        fn page(&self, from: u64, proofs: bool, since: Option<u64>) -> RootsBody {
            let placed = |place: u64| PlacedBody {
                place,
                entry: (&self.entries[place as usize]).into(),
                proof: proofs.then(|| self.path(place)),
            };
            RootsBody {
                roots: (from..self.size()).map(placed).collect(),
                next: None,
                consistency: since.map(|since| self.lead(since)),
                head: Some((&self.head(self.size())).into()),
            }
        }
    }

    fn text(body: &impl serde::Serialize) -> String {
        serde_json::to_string(body).unwrap()
    }

    fn check(text: &str, older: Option<&SignedHead>) -> Result<ShownRoots, RootsFault> {
        check_answer(text, &name(), None, older)
    }

    #[test]
    fn answers_of_every_kind_are_checked() {
        let log = Log::of(11, |_, _| {});
        let (head, older) = (log.head(11), log.head(6));
        for (from, proofs) in [(0, false), (0, true), (4, true), (10, false)] {
            let shown = check(&text(&log.page(from, proofs, Some(6))), Some(&older)).unwrap();
            let expected = (from..11).map(|place| (place, log.entries[place as usize]));
            assert_eq!(shown.entries, expected.collect::<Vec<_>>());
            assert_eq!((&shown.head, shown.since), (&head, Some(6)));
        }
        assert_eq!(
            check(&text(&log.page(4, false, None)), None),
            Err(RootsFault::NoProof(4))
        );
        let one = InclusionBody {
            place: 3,
            entry: (&log.entries[3]).into(),
            proof: log.path(3),
            head: (&head).into(),
        };
        let shown = check(&text(&one), None).unwrap();
        assert_eq!(shown.entries, [(3, log.entries[3])]);
        let lead = ConsistencyBody {
            head: Some((&head).into()),
            ..log.lead(6)
        };
        assert_eq!(check(&text(&lead), Some(&older)).unwrap().since, Some(6));
        assert_eq!(check(&text(&log.lead(6)), None), Err(RootsFault::NoHead));
        assert_eq!(head_of(&text(&lead), &name()), Ok(head.clone()));
        let page = text(&log.page(0, false, None));
        let elsewhere = Namespace::new("other").unwrap();
        let refused = check_answer(&page, &elsewhere, None, None);
        assert_eq!(refused, Err(RootsFault::NotSigned(elsewhere)));
        let strange = PublicKey([1; 32]);
        let refused = check_answer(&page, &name(), Some(&strange), None);
        assert!(matches!(refused, Err(RootsFault::OtherKey(_))));
        assert!(check_answer(&page, &name(), Some(&head.key), None).is_ok());
    }

    #[test]
    fn a_log_that_was_changed_is_told_from_one_that_goes_on() {
        let (log, edited) = (
            Log::of(11, |_, _| {}),
            Log::of(11, |place, entry| entry.seq += u64::from(place == 4)),
        );
        let page = text(&edited.page(0, false, Some(6)));
        let of = |head: &SignedHead| check(&page, Some(head)).unwrap_err();
        assert_eq!(of(&log.head(6)), RootsFault::NotConsistent(6));
        assert!(matches!(of(&log.head(11)), RootsFault::Contradiction(_)));
        assert_eq!(of(&log.head(5)), RootsFault::NoConsistency(5));
        assert!(check(&page, Some(&edited.head(6))).is_ok());
        assert!(check(&page, Some(&edited.head(11))).is_ok());
        let longer = Log::of(12, |_, _| {}).head(12);
        assert_eq!(of(&longer), RootsFault::NotOlder(12));
        let other = Log::of(6, |place, entry| entry.seq += u64::from(place == 0));
        assert!(matches!(of(&other.head(6)), RootsFault::OtherLog { .. }));
    }

    /// Changes every character of a text in turn, so that it is another one.
    fn mutated(text: &str) -> impl Iterator<Item = String> {
        (0..text.len()).flat_map(move |at| {
            ["0", "f", "7"].into_iter().filter_map(move |other| {
                let mut changed = text.to_owned();
                changed.replace_range(at..=at, other);
                (changed != text).then_some(changed)
            })
        })
    }

    #[test]
    fn an_answer_that_was_changed_anywhere_shows_nothing_else() {
        let log = Log::of(5, |_, _| {});
        let older = log.head(3);
        let page = text(&log.page(3, true, Some(3)));
        let whole = check(&page, Some(&older)).unwrap();
        let (mut refused, mut same) = (0, 0);
        for changed in mutated(&page) {
            match check(&changed, Some(&older)) {
                Err(_) => refused += 1,
                // Names of fields that do not count, and times for people.
                Ok(shown) => {
                    let all_there = shown.head == whole.head && shown.since == whole.since;
                    assert!(all_there, "{changed}");
                    let known = |entry: &(u64, RootEntry)| whole.entries.contains(entry);
                    assert!(shown.entries.iter().all(known), "{changed}");
                    same += 1;
                }
            }
        }
        assert!(refused > 10 * same && same > 0, "{refused} and {same}");
    }
}
