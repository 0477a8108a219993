//! Effects as the write-ahead log keeps them: everything that carrying them out again needs.
//! Layouts are prose in docs/reference/file-format.md.

use std::borrow::Cow;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::replica::command::{Effect, Healing, Mutation};
use crate::replica::facts::Facts;
use crate::roots::entry::RootEntry;
use crate::roots::witness::{Accusation, Witnessed};
use crate::store::body::{Body, BodyHead};
use crate::store::error::StoreError;
use crate::store::stage::{StageKey, Staging, StagingHead};
use crate::types::binary::{FORMAT, decode_prefix, encode_into};
use crate::types::hash::{ContentHash, StateKey};
use crate::types::record::StateRecord;
use crate::types::seen::Seen;

/// First byte of an effect that changes no record. Those that do begin with the format byte of
/// their encoded head.
const OTHER: u8 = 2;
const _: () = assert!(OTHER != FORMAT);

/// First byte of a healing.
const HEALING: u8 = 3;
const _: () = assert!(HEALING != FORMAT);

/// First byte of a step of a stage.
const STAGING: u8 = 4;
const _: () = assert!(STAGING != FORMAT);

/// A healing without its bytes, which follow it.
#[derive(Serialize, Deserialize)]
struct HealingHead {
    key: StateKey,
    references: u64,
    body: BodyHead,
}

/// A change of a record without the bytes of its bodies, which follow it.
#[derive(Serialize, Deserialize)]
struct MutationHead<'r> {
    seq: u64,
    record: Cow<'r, StateRecord>,
    bodies: Vec<BodyHead>,
}

/// An effect that changes no record, behind its first byte. The order of the variants is part of
/// the format.
#[derive(Serialize, Deserialize)]
enum Other {
    Remove(StateKey),
    Strip(StateKey, u64),
    Trim(StateKey, u64),
    Free(ContentHash),
    Learn(Seen),
    Seal(RootEntry),
    Witness(Box<Witnessed>),
    Accuse(Box<Accusation>),
    Unstage(StageKey),
}

/// What facts begin with, where an effect would begin with another byte.
const FACTS: u8 = 0;

/// A commit as bytes.
pub fn to_bytes(facts: &Facts, effects: &[Effect]) -> Bytes {
    let bodies = effects.iter().flat_map(|effect| match effect {
        Effect::Change(mutation) => &mutation.bodies[..],
        Effect::Heal(healing) => std::slice::from_ref(&healing.body),
        _ => &[],
    });
    let staged = effects.iter().map(|effect| match effect {
        Effect::Stage(staging) => staging.weight(),
        _ => 0,
    });
    let room = bodies.map(Body::weight).chain(staged).sum::<usize>();
    let mut bytes = Vec::with_capacity(room + effects.len() * 192);
    if !facts.is_empty() {
        bytes.push(FACTS);
        encode_into(&mut bytes, facts);
    }
    for effect in effects {
        match effect {
            Effect::Change(mutation) => append_change(&mut bytes, mutation),
            Effect::Remove(key) => append(&mut bytes, &Other::Remove(*key)),
            Effect::Strip(key, by) => append(&mut bytes, &Other::Strip(*key, *by)),
            Effect::Trim(key, through) => append(&mut bytes, &Other::Trim(*key, *through)),
            Effect::Free(hash) => append(&mut bytes, &Other::Free(*hash)),
            Effect::Learn(seen) => append(&mut bytes, &Other::Learn(seen.clone())),
            Effect::Seal(entry) => append(&mut bytes, &Other::Seal(*entry)),
            Effect::Witness(head) => {
                append(&mut bytes, &Other::Witness(Box::new((**head).clone())));
            }
            Effect::Accuse(held) => append(&mut bytes, &Other::Accuse(Box::new((**held).clone()))),
            Effect::Heal(healing) => append_healing(&mut bytes, healing),
            Effect::Unstage(key) => append(&mut bytes, &Other::Unstage(*key)),
            Effect::Stage(staging) => {
                bytes.push(STAGING);
                encode_into(&mut bytes, &staging.head());
                staging.append_to(&mut bytes);
            }
        }
    }
    bytes.into()
}

fn append_change(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let head = MutationHead {
        seq: mutation.seq,
        record: Cow::Borrowed(&mutation.record),
        bodies: mutation.bodies.iter().map(Body::head).collect(),
    };
    encode_into(bytes, &head);
    for body in &mutation.bodies {
        body.append_to(bytes);
    }
}

fn append_healing(bytes: &mut Vec<u8>, healing: &Healing) {
    bytes.push(HEALING);
    let head = HealingHead {
        key: healing.key,
        references: healing.references,
        body: healing.body.head(),
    };
    encode_into(bytes, &head);
    healing.body.append_to(bytes);
}

fn append(bytes: &mut Vec<u8>, other: &Other) {
    bytes.push(OTHER);
    encode_into(bytes, other);
}

/// A commit, read back.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are something else.
pub fn from_bytes(mut bytes: Bytes) -> Result<(Facts, Vec<Effect>), StoreError> {
    let (mut facts, mut effects) = (Facts::default(), Vec::new());
    if bytes.first() == Some(&FACTS) {
        bytes.advance(1);
        let (read, used) = decode_prefix(&bytes)?;
        bytes.advance(used);
        facts = read;
    }
    while let Some(first) = bytes.first() {
        effects.push(match *first {
            OTHER => {
                bytes.advance(1);
                take_other(&mut bytes)?
            }
            HEALING => {
                bytes.advance(1);
                Effect::Heal(take_healing(&mut bytes)?)
            }
            STAGING => {
                bytes.advance(1);
                Effect::Stage(take_staging(&mut bytes)?)
            }
            _ => Effect::Change(take_change(&mut bytes)?),
        });
    }
    Ok((facts, effects))
}

fn take_change(bytes: &mut Bytes) -> Result<Mutation, StoreError> {
    let (head, used): (MutationHead<'_>, usize) = decode_prefix(bytes)?;
    bytes.advance(used);
    let bodies = head.bodies.into_iter();
    let bodies = bodies.map(|body| take_body(body, bytes));
    let bodies = bodies.collect::<Result<_, _>>()?;
    let record = head.record.into_owned();
    Ok(Mutation::new(record.key(), head.seq, record, bodies))
}

fn take_healing(bytes: &mut Bytes) -> Result<Healing, StoreError> {
    let (head, used): (HealingHead, usize) = decode_prefix(bytes)?;
    bytes.advance(used);
    Ok(Healing {
        key: head.key,
        references: head.references,
        body: take_body(head.body, bytes)?,
    })
}

fn take_staging(bytes: &mut Bytes) -> Result<Staging, StoreError> {
    let (head, used): (StagingHead, usize) = decode_prefix(bytes)?;
    bytes.advance(used);
    Staging::take(head, bytes).ok_or_else(too_short)
}

fn take_body(head: BodyHead, bytes: &mut Bytes) -> Result<Body, StoreError> {
    let body = Body::take(head, bytes);
    body.ok_or_else(too_short)
}

fn too_short() -> StoreError {
    StoreError::damaged("an entry of the log ends too early")
}

fn take_other(bytes: &mut Bytes) -> Result<Effect, StoreError> {
    let (other, used): (Other, usize) = decode_prefix(bytes)?;
    bytes.advance(used);
    Ok(match other {
        Other::Remove(key) => Effect::Remove(key),
        Other::Strip(key, by) => Effect::Strip(key, by),
        Other::Trim(key, through) => Effect::Trim(key, through),
        Other::Free(hash) => Effect::Free(hash),
        Other::Learn(seen) => Effect::Learn(seen),
        Other::Seal(entry) => Effect::Seal(entry),
        Other::Witness(head) => Effect::Witness(head.into()),
        Other::Accuse(held) => Effect::Accuse(held.into()),
        Other::Unstage(key) => Effect::Unstage(key),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::HybridClock;
    use crate::roots::head::{LogHead, SecretKey};
    use crate::roots::witness::Fault;
    use crate::store::stage::StagedChunk;
    use crate::types::cursor::Epoch;
    use crate::types::hash::{ChunkHash, ContentHash, LogHash, NodeHash};
    use crate::types::id::{GameId, Namespace, ReplicaId, WriterId};
    use crate::types::version::{Version, VersionVector};

    fn change(seq: u64, bytes: Option<&[u8]>) -> Effect {
        let mut vector = VersionVector::default();
        vector.set(WriterId(1), seq);
        let body = bytes.map(Body::new);
        let version = Version {
            vector,
            stamp: HybridClock::new(ReplicaId(1), 0).tick(seq),
            content: body.as_ref().map_or(ContentHash::NONE, |body| body.hash),
            size: body.as_ref().map_or(0, |body| body.size),
            content_type: None,
            expires_at: None,
            tombstone: body.is_none(),
            lease_epoch: 0,
        };
        let record = StateRecord::new(GameId::new(&format!("match/{seq}")).unwrap(), version);
        let bodies = body.into_iter().collect();
        Effect::Change(Mutation::new(record.key(), seq, record, bodies))
    }

    fn staging() -> Staging {
        let chunk = |byte: u8, packed: Option<&'static [u8]>| StagedChunk {
            hash: ChunkHash([byte; 32]),
            length: 5000,
            packed: packed.map(Bytes::from_static),
        };
        Staging {
            key: StageKey([8; 32]),
            content: ContentHash([9; 32]),
            size: 1 << 30,
            from: 700,
            chunks: vec![
                chunk(1, Some(b"packed")),
                chunk(2, None),
                chunk(1, Some(b"")),
            ],
            at: 1_700_000_000_000,
        }
    }

    #[test]
    fn effects_come_back_and_from_no_fewer_bytes() {
        let large = vec![7; 100_000];
        let (key, mut seen) = (StateKey([2; 32]), Seen::default());
        seen.raise(WriterId(7), 300);
        let entry = RootEntry {
            root: NodeHash([4; 32]),
            seq: 1 << 40,
            epoch: Epoch(3),
            incarnation: 2,
            time: 1_700_000_000_000,
        };
        let head = LogHead {
            replica: ReplicaId(1),
            log: LogHash([5; 32]),
            size: 1,
            hash: entry.leaf(),
            newest: entry,
        };
        let name = Namespace::default_namespace();
        let head = SecretKey::from_seed(&[6; 32]).sign(&name, head);
        let effects = [
            change(1, Some(b"small")),
            Effect::Remove(key),
            change(2, None),
            Effect::Strip(key, 1_700_000_000_000),
            Effect::Trim(key, 9),
            Effect::Learn(seen),
            Effect::Free(ContentHash([3; 32])),
            Effect::Seal(entry),
            Effect::Witness(Arc::new(Witnessed {
                head: head.clone(),
                heard_at: 5,
            })),
            Effect::Accuse(Arc::new(Accusation {
                fault: Fault::Rewritten,
                first: head.clone(),
                second: head,
                found_at: 6,
            })),
            Effect::Heal(Healing {
                key,
                body: Body::new(&large),
                references: 4,
            }),
            change(3, Some(&large)),
            Effect::Stage(staging()),
            Effect::Unstage(StageKey([8; 32])),
        ];
        let mut facts = Facts::default();
        facts.forgotten.push(Epoch(7));
        let bytes = to_bytes(&facts, &effects);
        let read = from_bytes(bytes.clone()).unwrap();
        assert_eq!(read, (facts.clone(), effects.to_vec()));
        let whole: Vec<usize> = (0..effects.len())
            .map(|count| to_bytes(&facts, &effects[..count]).len())
            .collect();
        let plain = to_bytes(&Facts::default(), &effects);
        assert_eq!(from_bytes(plain).unwrap().1, effects);
        let is_read = |cut: usize| from_bytes(bytes.slice(..cut)).is_ok();
        assert!((1..bytes.len()).all(|cut| is_read(cut) == whole.contains(&cut)));
    }
}
