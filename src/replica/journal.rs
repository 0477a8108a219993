//! Mutations as the write-ahead log keeps them: everything that carrying them out again needs.
//! Layouts are prose in docs/reference/file-format.md.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::replica::command::{Healing, Mutation};
use crate::replica::facts::Facts;
use crate::store::body::{Body, BodyHead};
use crate::store::error::StoreError;
use crate::types::binary::{FORMAT, decode_prefix, encode};
use crate::types::hash::StateKey;
use crate::types::record::StateRecord;

/// First byte of a healing. A mutation begins with the format byte of its encoded head.
const HEALING: u8 = 3;
const _: () = assert!(HEALING != FORMAT);

/// A healing without its bytes, which follow it.
#[derive(Serialize, Deserialize)]
struct HealingHead {
    key: StateKey,
    references: u64,
    body: BodyHead,
}

/// A mutation without the bytes of its bodies, which follow it.
#[derive(Serialize, Deserialize)]
struct MutationHead {
    seq: u64,
    record: StateRecord,
    bodies: Vec<BodyHead>,
}

/// What facts begin with, where a mutation would begin with its format byte.
const FACTS: u8 = 0;

/// What one commit does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// What it says of the namespace and its peers.
    pub facts: Facts,
    /// Its changes, in order.
    pub mutations: Vec<Mutation>,
    /// The bytes that it puts right.
    pub healings: Vec<Healing>,
}

/// What one commit does as bytes.
pub fn to_bytes(facts: &Facts, mutations: &[Mutation], healings: &[Healing]) -> Bytes {
    let bodies = mutations.iter().flat_map(|mutation| &mutation.bodies);
    let bodies = bodies.chain(healings.iter().map(|healing| &healing.body));
    let room: usize = bodies.map(Body::weight).sum();
    let mut bytes = Vec::with_capacity(room + mutations.len() * 192);
    if !facts.is_empty() {
        bytes.push(FACTS);
        bytes.extend_from_slice(&encode(facts));
    }
    for mutation in mutations {
        let head = MutationHead {
            seq: mutation.seq,
            record: mutation.record.clone(),
            bodies: mutation.bodies.iter().map(Body::head).collect(),
        };
        bytes.extend_from_slice(&encode(&head));
        for body in &mutation.bodies {
            body.append_to(&mut bytes);
        }
    }
    for healing in healings {
        bytes.push(HEALING);
        bytes.extend_from_slice(&encode(&HealingHead {
            key: healing.key,
            references: healing.references,
            body: healing.body.head(),
        }));
        healing.body.append_to(&mut bytes);
    }
    bytes.into()
}

fn take_body(head: BodyHead, bytes: &mut Bytes) -> Result<Body, StoreError> {
    let body = Body::take(head, bytes);
    body.ok_or_else(|| StoreError::damaged("an entry of the log ends too early"))
}

/// What one commit does, read back.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are something else.
pub fn from_bytes(mut bytes: Bytes) -> Result<Logged, StoreError> {
    let mut logged = Logged::default();
    if bytes.first() == Some(&FACTS) {
        let _ = bytes.split_to(1);
        let (facts, used) = decode_prefix(&bytes)?;
        let _ = bytes.split_to(used);
        logged.facts = facts;
    }
    while !bytes.is_empty() {
        if bytes.first() == Some(&HEALING) {
            let _ = bytes.split_to(1);
            let (head, used): (HealingHead, usize) = decode_prefix(&bytes)?;
            let _ = bytes.split_to(used);
            logged.healings.push(Healing {
                key: head.key,
                references: head.references,
                body: take_body(head.body, &mut bytes)?,
            });
            continue;
        }
        let (head, used): (MutationHead, usize) = decode_prefix(&bytes)?;
        let _ = bytes.split_to(used);
        let bodies = head.bodies.into_iter();
        let bodies = bodies.map(|body| take_body(body, &mut bytes));
        let bodies = bodies.collect::<Result<_, _>>()?;
        logged.mutations.push(Mutation {
            key: head.record.key(),
            seq: head.seq,
            record: head.record,
            bodies,
        });
    }
    Ok(logged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::HybridClock;
    use crate::types::cursor::Epoch;
    use crate::types::hash::ContentHash;
    use crate::types::id::{GameId, ReplicaId, WriterId};
    use crate::types::version::{Version, VersionVector};

    fn mutation(seq: u64, bytes: Option<&[u8]>) -> Mutation {
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
        Mutation {
            key: record.key(),
            seq,
            record,
            bodies: body.into_iter().collect(),
        }
    }

    #[test]
    fn mutations_come_back_and_from_no_fewer_bytes() {
        let large = vec![7; 100_000];
        let mutations = [
            mutation(1, Some(b"small")),
            mutation(2, None),
            mutation(3, Some(&large)),
        ];
        let healings =
            [mutation(4, Some(b"healed")), mutation(5, Some(&large))].map(|change| Healing {
                key: change.key,
                body: change.bodies[0].clone(),
                references: change.seq,
            });
        let facts = Facts {
            forgotten: vec![Epoch(7)],
            ..Facts::default()
        };
        let bytes = to_bytes(&facts, &mutations, &healings);
        let logged = from_bytes(bytes.clone()).unwrap();
        assert_eq!(logged.facts, facts);
        assert_eq!(logged.mutations, mutations);
        assert_eq!(logged.healings, healings);
        let plain = to_bytes(&Facts::default(), &mutations, &[]);
        assert_eq!(from_bytes(plain).unwrap().mutations, mutations);
        let whole = [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1)].map(|(changes, healed)| {
            to_bytes(&facts, &mutations[..changes], &healings[..healed]).len()
        });
        for cut in 1..bytes.len() {
            assert_eq!(from_bytes(bytes.slice(..cut)).is_ok(), whole.contains(&cut));
        }
    }
}
