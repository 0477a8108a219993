//! Proofs as bytes, for one id or a thousand: small, and written in one way only, so that a change
//! of any byte is refused or changes what is hashed. Defined in docs/reference/merkle-tree.md.

use crate::merkle::asked::{Asked, ShownIds};
use crate::merkle::multiproof::{MultiProof, NodeSource, ProofNode, split_keys, verify};
use crate::merkle::node::Summary;
use crate::merkle::proof::{BadProof, PROOF_IDS_MAX};
use crate::types::hash::{LeafDigest, NodeHash, StateKey};
use crate::types::id::GameId;
use crate::types::leaf::Leaf;

/// What a proof in bytes begins with; the last byte is the version of the form.
pub const PROOF_MAGIC: [u8; 4] = *b"ssp\x01";
/// Longest proof that is read: far above a thousand ids of the longest kind in any honest tree.
pub const PROOF_BYTES_MAX: usize = 8 << 20;

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
    write_number(&mut bytes, writer.shape.bytes.len() as u64);
    bytes.extend_from_slice(&writer.shape.bytes);
    bytes.extend_from_slice(&writer.data);
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
    let data = bytes
        .strip_prefix(&PROOF_MAGIC)
        .ok_or(BadProof::Malformed("it does not begin like one"))?;
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
    let shape = Bits {
        bytes: input.counted()?,
        at: 0,
    };
    let reader = Reader {
        shape,
        data: input,
        updated_at: 0,
    };
    Ok((asked, reader))
}

/// Appends 7 bits a byte, lowest first, the highest bit set on all but the last (LEB128).
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Steps both ways as numbers that are small when the step is: 0, -1, 1, -2, ...
fn zigzag(step: i64) -> u64 {
    ((step << 1) ^ (step >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[derive(Default)]
struct Writer {
    shape: BitWriter,
    data: Vec<u8>,
    updated_at: u64,
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    /// Appends bits, each `0` or `1`.
    fn push(&mut self, bits: &[u8]) {
        for bit in bits {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }
}

impl Writer {
    fn node(&mut self, node: &ProofNode, depth: u8, keys: &[StateKey]) -> Result<(), BadProof> {
        match (node, keys) {
            (ProofNode::Empty, []) => self.shape.push(&[0]),
            (ProofNode::Subtree(summary), []) => {
                self.shape.push(&[1]);
                self.data.extend_from_slice(&summary.hash.0);
                write_number(&mut self.data, summary.leaves);
                self.tail(summary.size, summary.updated_at);
            }
            (ProofNode::Inner, [_, ..]) => self.shape.push(&[0]),
            (ProofNode::Empty, [_, ..]) => self.shape.push(&[1, 0]),
            (ProofNode::Leaf(leaf), [key, more @ ..]) => {
                let own = more.is_empty() && leaf.key == *key;
                self.shape.push(&[1, 1, u8::from(!own)]);
                if !own {
                    self.data.extend_from_slice(&leaf.key.0);
                }
                self.data.extend_from_slice(&leaf.digest.0);
                self.tail(leaf.size, leaf.updated_at);
            }
            _ => {
                let depth = usize::from(depth);
                return Err(BadProof::Misplaced { depth });
            }
        }
        Ok(())
    }

    fn tail(&mut self, size: u64, updated_at: u64) {
        write_number(&mut self.data, size);
        let step = updated_at.wrapping_sub(self.updated_at) as i64;
        write_number(&mut self.data, zigzag(step));
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

    /// A number in its shortest form.
    fn number(&mut self) -> Result<u64, BadProof> {
        let mut number = 0u64;
        for place in 0..10u32 {
            let (byte, rest) = self.0.split_first().ok_or(BadProof::Truncated)?;
            self.0 = rest;
            let part = u64::from(byte & 0x7f);
            let shifted = part << (7 * place);
            if shifted >> (7 * place) != part {
                break;
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                let padded = *byte == 0 && place > 0;
                return match padded {
                    true => Err(BadProof::Malformed(
                        "a number is longer than it needs to be",
                    )),
                    false => Ok(number),
                };
            }
        }
        Err(BadProof::Malformed("a number is too large"))
    }

    /// Bytes behind their number.
    fn counted(&mut self) -> Result<&'a [u8], BadProof> {
        let length = self.number()?;
        let length = usize::try_from(length).map_err(|_| BadProof::Truncated)?;
        self.take(length)
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn next(&mut self) -> Result<bool, BadProof> {
        let byte = self.bytes.get(self.at / 8).ok_or(BadProof::Truncated)?;
        let bit = byte >> (7 - self.at % 8) & 1 == 1;
        self.at += 1;
        Ok(bit)
    }

    /// True when nothing but the zeros that fill the last byte is left.
    fn is_over(&self) -> bool {
        let last = self.bytes.last().copied().unwrap_or(0);
        let filling = (self.bytes.len() * 8).checked_sub(self.at);
        matches!(filling, Some(filling @ 0..8) if u32::from(last) & ((1 << filling) - 1) == 0)
    }
}

struct Reader<'a> {
    shape: Bits<'a>,
    data: Input<'a>,
    updated_at: u64,
}

impl Reader<'_> {
    fn subtree(&mut self) -> Result<ProofNode, BadProof> {
        let hash = NodeHash(self.data.hash()?);
        let leaves = self.data.number()?;
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
        let foreign = self.shape.next()?;
        let key = match (foreign, own) {
            (false, Some(own)) => own,
            (false, None) => return Err(BadProof::Malformed("a leaf leaves open whose it is")),
            (true, own) => {
                let key = StateKey(self.data.hash()?);
                if own == Some(key) {
                    return Err(BadProof::Malformed("a key is repeated"));
                }
                key
            }
        };
        let digest = LeafDigest(self.data.hash()?);
        let (size, updated_at) = self.tail()?;
        Ok(ProofNode::Leaf(Leaf {
            key,
            digest,
            size,
            updated_at,
        }))
    }

    fn tail(&mut self) -> Result<(u64, u64), BadProof> {
        let size = self.data.number()?;
        let step = unzigzag(self.data.number()?);
        self.updated_at = self.updated_at.wrapping_add(step as u64);
        Ok((size, self.updated_at))
    }
}

impl NodeSource for Reader<'_> {
    fn next(&mut self, _: usize, keys: &[StateKey]) -> Result<ProofNode, BadProof> {
        match (self.shape.next()?, keys) {
            (false, []) => Ok(ProofNode::Empty),
            (true, []) => self.subtree(),
            (false, _) => Ok(ProofNode::Inner),
            (true, _) if self.shape.next()? => self.leaf(keys),
            (true, _) => Ok(ProofNode::Empty),
        }
    }

    fn end(self) -> Result<(), BadProof> {
        if self.shape.is_over() && self.data.0.is_empty() {
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
                b"ssp\x02".to_vec(),
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

    #[test]
    fn numbers_and_steps_come_back() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX / 2, u64::MAX] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number);
            assert_eq!(Input(&bytes).number(), Ok(number));
            assert_eq!(zigzag(unzigzag(number)), number);
        }
        assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
    }
}
