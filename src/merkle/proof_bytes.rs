//! Proofs as bytes, for one id or a thousand: small, and written in one way only, so that a change
//! of any byte is refused or changes what is hashed. Defined in docs/reference/merkle-tree.md.

use crate::merkle::asked::{Asked, ShownIds};
use crate::merkle::bits::{BitWriter, Bits, Length};
use crate::merkle::multiproof::{MultiProof, NodeSource, ProofNode, split_keys, verify};
use crate::merkle::node::Summary;
use crate::merkle::numbers::{NotANumber, read_number, step, take_step, write_number};
use crate::merkle::proof::{BadProof, PROOF_IDS_MAX};
use crate::types::hash::{LeafDigest, NodeHash, StateKey};
use crate::types::id::GameId;
use crate::types::leaf::Leaf;

/// What a proof in bytes begins with; the last byte is the version of the form.
pub const PROOF_MAGIC: [u8; 4] = *b"ssp\x02";
/// Longest proof that is read: far above a thousand ids of the longest kind in any honest tree.
pub const PROOF_BYTES_MAX: usize = 8 << 20;
/// Bits of milliseconds since 1970-01-01 UTC, until 2039.
const TIME_BITS: u32 = 41;

/// Writes a proof about those ids.
///
/// # Errors
/// [`BadProof`] when the nodes are not those of a proof about them.
pub fn encode(asked: &Asked, proof: &MultiProof) -> Result<Vec<u8>, BadProof> {
    let mut writer = Writer::default();
    let mut places = vec![(0u8, asked.keys())];
    for node in &proof.nodes {
        let (depth, keys) = places.pop().ok_or(BadProof::Surplus)?;
        writer.node(node, depth, keys)?;
        if *node == ProofNode::Inner {
            let (left, right) = split_keys(keys, depth);
            let below = depth.saturating_add(1);
            places.extend([(below, right), (below, left)]);
        }
    }
    if !places.is_empty() {
        return Err(BadProof::Truncated);
    }
    let mut bytes = PROOF_MAGIC.to_vec();
    write_number(&mut bytes, asked.ids().len() as u64);
    for id in asked.ids() {
        write_number(&mut bytes, id.as_str().len() as u64);
        bytes.extend_from_slice(id.as_str().as_bytes());
    }
    let bits = writer.bits.into_bytes();
    write_number(&mut bytes, bits.len() as u64);
    bytes.extend_from_slice(&bits);
    bytes.extend_from_slice(&writer.hashes);
    Ok(bytes)
}

/// Checks a proof in bytes against a root and says what it shows. Takes memory for the ids and
/// answers only.
///
/// # Errors
/// [`BadProof`] when it proves nothing.
pub fn verify_bytes(bytes: &[u8], root: &NodeHash) -> Result<ShownIds, BadProof> {
    if bytes.len() > PROOF_BYTES_MAX {
        return Err(BadProof::Malformed("it is too long"));
    }
    let (asked, reader) = open(bytes)?;
    let shown = verify(reader, root, asked.keys())?;
    Ok(asked.name(shown))
}

/// The ids of a proof, and its nodes.
fn open(bytes: &[u8]) -> Result<(Asked, Reader<'_>), BadProof> {
    let stranger = match bytes {
        [b's', b's', b'p', _, ..] => "its form is of another version; have it made again",
        _ => "it does not begin like one",
    };
    let data = bytes.strip_prefix(&PROOF_MAGIC);
    let data = data.ok_or(BadProof::Malformed(stranger))?;
    let mut input = Input(data);
    let count = input.number()?;
    if count > PROOF_IDS_MAX as u64 {
        return Err(BadProof::TooManyIds(
            usize::try_from(count).unwrap_or(usize::MAX),
        ));
    }
    let mut ids = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let id = input.counted()?;
        let id = std::str::from_utf8(id)
            .ok()
            .and_then(|id| GameId::new(id).ok());
        ids.push(id.ok_or(BadProof::Malformed("it names an id that cannot be one"))?);
    }
    let asked = Asked::in_order(ids)?;
    let reader = Reader {
        bits: Bits::new(input.counted()?),
        hashes: input,
        lengths: Lengths::default(),
        updated_at: 0,
    };
    Ok((asked, reader))
}

/// How long the numbers of each kind were last.
struct Lengths {
    leaves: Length,
    size: Length,
    step: Length,
}

impl Default for Lengths {
    fn default() -> Self {
        Self {
            leaves: Length::default(),
            size: Length::default(),
            step: Length::of(TIME_BITS),
        }
    }
}

#[derive(Default)]
struct Writer {
    bits: BitWriter,
    hashes: Vec<u8>,
    lengths: Lengths,
    updated_at: u64,
}

impl Writer {
    fn shape(&mut self, bits: &[bool]) {
        bits.iter().for_each(|bit| self.bits.bit(*bit));
    }

    fn node(&mut self, node: &ProofNode, depth: u8, keys: &[StateKey]) -> Result<(), BadProof> {
        let misplaced = BadProof::Misplaced {
            depth: usize::from(depth),
        };
        match (node, keys) {
            (ProofNode::Empty, []) | (ProofNode::Inner, [_, ..]) => self.shape(&[false]),
            (ProofNode::Subtree(summary), []) => {
                self.shape(&[true]);
                self.hashes.extend_from_slice(&summary.hash.0);
                // It has one leaf at least.
                let more = summary.leaves.checked_sub(1).ok_or(misplaced)?;
                self.bits.number(more, &mut self.lengths.leaves);
                self.tail(summary.size, summary.updated_at);
            }
            (ProofNode::Empty, [_, ..]) => self.shape(&[true, false]),
            (ProofNode::Leaf(leaf), [key, more @ ..]) => {
                let own = more.is_empty() && leaf.key == *key;
                self.shape(&[true, true, !own]);
                if !own {
                    self.hashes.extend_from_slice(&leaf.key.0);
                }
                self.hashes.extend_from_slice(&leaf.digest.0);
                self.tail(leaf.size, leaf.updated_at);
            }
            _ => return Err(misplaced),
        }
        Ok(())
    }

    fn tail(&mut self, size: u64, updated_at: u64) {
        self.bits.number(size, &mut self.lengths.size);
        let step = step(self.updated_at, updated_at);
        self.bits.number(step, &mut self.lengths.step);
        self.updated_at = updated_at;
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BadProof> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BadProof::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn hash(&mut self) -> Result<[u8; 32], BadProof> {
        let (hash, rest) = self.0.split_first_chunk().ok_or(BadProof::Truncated)?;
        self.0 = rest;
        Ok(*hash)
    }

    fn number(&mut self) -> Result<u64, BadProof> {
        read_number(&mut self.0).map_err(|fault| match fault {
            NotANumber::Truncated => BadProof::Truncated,
            NotANumber::Padded => BadProof::Malformed("a number is longer than it needs to be"),
            NotANumber::TooLarge => BadProof::Malformed("a number is too large"),
        })
    }

    /// Bytes behind their number.
    fn counted(&mut self) -> Result<&'a [u8], BadProof> {
        let length = self.number()?;
        let length = usize::try_from(length).map_err(|_| BadProof::Truncated)?;
        self.take(length)
    }
}

struct Reader<'a> {
    bits: Bits<'a>,
    hashes: Input<'a>,
    lengths: Lengths,
    updated_at: u64,
}

impl Reader<'_> {
    fn subtree(&mut self) -> Result<ProofNode, BadProof> {
        let hash = NodeHash(self.hashes.hash()?);
        let more = self.bits.number(&mut self.lengths.leaves)?;
        let too_many = BadProof::Malformed("a number is too large");
        let leaves = more.checked_add(1).ok_or(too_many)?;
        let (size, updated_at) = self.tail()?;
        Ok(ProofNode::Subtree(Summary {
            hash,
            leaves,
            size,
            updated_at,
        }))
    }

    fn leaf(&mut self, keys: &[StateKey]) -> Result<ProofNode, BadProof> {
        let own = match keys {
            [only] => Some(*only),
            _ => None,
        };
        let foreign = self.bits.bit()?;
        let key = match (foreign, own) {
            (false, Some(own)) => own,
            (false, None) => return Err(BadProof::Malformed("a leaf leaves open whose it is")),
            (true, own) => {
                let key = StateKey(self.hashes.hash()?);
                if own == Some(key) {
                    return Err(BadProof::Malformed("a key is repeated"));
                }
                key
            }
        };
        let digest = LeafDigest(self.hashes.hash()?);
        let (size, updated_at) = self.tail()?;
        Ok(ProofNode::Leaf(Leaf {
            key,
            digest,
            size,
            updated_at,
        }))
    }

    fn tail(&mut self) -> Result<(u64, u64), BadProof> {
        let size = self.bits.number(&mut self.lengths.size)?;
        let step = self.bits.number(&mut self.lengths.step)?;
        self.updated_at = take_step(self.updated_at, step);
        Ok((size, self.updated_at))
    }
}

impl NodeSource for Reader<'_> {
    fn next(&mut self, _: usize, keys: &[StateKey]) -> Result<ProofNode, BadProof> {
        match (self.bits.bit()?, keys) {
            (false, []) => Ok(ProofNode::Empty),
            (true, []) => self.subtree(),
            (false, _) => Ok(ProofNode::Inner),
            (true, _) if self.bits.bit()? => self.leaf(keys),
            (true, _) => Ok(ProofNode::Empty),
        }
    }

    fn end(self) -> Result<(), BadProof> {
        if self.bits.is_over() && self.hashes.0.is_empty() {
            Ok(())
        } else {
            Err(BadProof::Surplus)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::memory::leaf;
    use crate::merkle::proof::Proven;
    use crate::merkle::trie::root_of;

    fn id(n: u64) -> GameId {
        GameId::new(&format!("match/{n}")).unwrap()
    }

    fn leaves(count: u64) -> Vec<Leaf> {
        let one = |n| leaf(StateKey::of(&id(n)), n * 1000);
        let mut leaves: Vec<Leaf> = (0..count).map(one).collect();
        leaves.sort_by_key(|leaf| leaf.key);
        leaves
    }

    fn proof(leaves: &[Leaf], ids: impl Iterator<Item = u64>) -> (Asked, MultiProof) {
        let asked = Asked::new(ids.map(id).collect()).unwrap();
        let proof = MultiProof::among(leaves, asked.keys());
        (asked, proof)
    }

    /// The truth about those ids among `match/0` to `match/{count - 1}`.
    fn check_truth(shown: &ShownIds, asked: &Asked, leaves: &[Leaf]) {
        let ids: Vec<&GameId> = shown.answers.iter().map(|(id, _)| id).collect();
        assert_eq!(ids, asked.ids().iter().collect::<Vec<_>>());
        for ((_, proven), key) in shown.answers.iter().zip(asked.keys()) {
            let held = leaves.iter().find(|leaf| leaf.key == *key);
            assert_eq!(
                *proven,
                held.map_or(Proven::Absent, |l| Proven::Included(*l))
            );
        }
        assert_eq!(shown.whole, root_of(leaves));
    }

    #[test]
    fn no_byte_can_be_changed_dropped_added_or_moved() {
        // Few leaves beside many ids: some places hold several keys and one leaf, or none.
        for (count, ids) in [
            (300, 0..1),
            (300, 295..305),
            (6, 0..40),
            (1, 0..2),
            (0, 0..3),
        ] {
            let leaves = leaves(count);
            let root = root_of(&leaves).hash;
            let (asked, proof) = proof(&leaves, ids);
            let sound = encode(&asked, &proof).unwrap();
            check_truth(&verify_bytes(&sound, &root).unwrap(), &asked, &leaves);
            let refused = |mutated: &[u8], what: &str| {
                let Ok(shown) = verify_bytes(mutated, &root) else {
                    return;
                };
                // Of other ids it may tell the truth, of those asked about nothing else.
                let claimed = shown.answers.iter().map(|(id, _)| id);
                assert!(!claimed.eq(asked.ids()), "{count} leaves: {what}");
                for (id, proven) in &shown.answers {
                    let key = StateKey::of(id);
                    let held = leaves.iter().find(|leaf| leaf.key == key);
                    assert_eq!(
                        *proven,
                        held.map_or(Proven::Absent, |l| Proven::Included(*l))
                    );
                }
            };
            for at in 0..sound.len() {
                let mut mutated = sound.clone();
                for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                    mutated[at] = sound[at] ^ flip;
                    refused(&mutated, &format!("byte {at} ^ {flip}"));
                }
                refused(&sound[..at], &format!("cut off at {at}"));
                let dropped = [&sound[..at], &sound[at + 1..]].concat();
                if dropped != sound {
                    refused(&dropped, &format!("byte {at} dropped"));
                }
                for value in [0, 1, 0x80, sound[at]] {
                    let added = [&sound[..at], &[value], &sound[at..]].concat();
                    refused(&added, &format!("{value} added at {at}"));
                }
                let mut moved = sound.clone();
                moved.swap(at, sound.len() / 2);
                if moved != sound {
                    refused(&moved, &format!("byte {at} moved"));
                }
            }
            refused(&[&sound[..], &[0]].concat(), "a byte appended");
        }
    }

    #[test]
    fn what_does_not_belong_together_is_not_written() {
        let leaves = leaves(50);
        let (asked, proof) = proof(&leaves, 3..6);
        let (other, _) = self::proof(&leaves, 10..40);
        assert!(encode(&other, &proof).is_err());
        let mut cut = proof.clone();
        cut.nodes.pop();
        assert_eq!(encode(&asked, &cut), Err(BadProof::Truncated));
        let mut long = proof.clone();
        long.nodes.push(ProofNode::Empty);
        assert_eq!(encode(&asked, &long), Err(BadProof::Surplus));
    }

    #[test]
    fn numbers_and_ids_are_bounded_before_memory_is_taken() {
        let root = NodeHash([0; 32]);
        let begin = |rest: &[u8]| [&PROOF_MAGIC[..], rest].concat();
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        for (bytes, error) in [
            (begin(&most), BadProof::TooManyIds(usize::MAX)),
            (begin(&[0xe9, 0x07]), BadProof::TooManyIds(1001)),
            (begin(&[0xe8, 0x07]), BadProof::Truncated),
            (begin(&[0]), BadProof::Unsorted),
            (
                begin(&[1, 0]),
                BadProof::Malformed("it names an id that cannot be one"),
            ),
            (begin(&[&[1u8][..], &most].concat()), BadProof::Truncated),
            (begin(&[1, 1, b'a', 0]), BadProof::Truncated),
            (
                begin(&[0x81, 0]),
                BadProof::Malformed("a number is longer than it needs to be"),
            ),
            (
                begin(&[0xff; 11]),
                BadProof::Malformed("a number is too large"),
            ),
            (
                b"ssp\x01".to_vec(),
                BadProof::Malformed("its form is of another version; have it made again"),
            ),
            (
                b"ssq\x02".to_vec(),
                BadProof::Malformed("it does not begin like one"),
            ),
            (
                vec![0; PROOF_BYTES_MAX + 1],
                BadProof::Malformed("it is too long"),
            ),
        ] {
            assert_eq!(verify_bytes(&bytes, &root), Err(error));
        }
        assert!(verify_bytes(&begin(&[1, 1, b'a', 1, 0x80]), &root).is_ok());
        assert!(Asked::new((0..1001).map(id).collect()).is_err());
    }
}
