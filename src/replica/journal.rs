//! Mutations as the write-ahead log keeps them: everything that carrying them out again needs.
//! Layouts are prose in docs/reference/file-format.md.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::replica::command::Mutation;
use crate::replica::facts::Facts;
use crate::store::body::{Body, BodyHead};
use crate::store::error::StoreError;
use crate::types::binary::{decode_prefix, encode};
use crate::types::record::StateRecord;

/// A mutation without the bytes of its bodies, which follow it.
#[derive(Serialize, Deserialize)]
struct MutationHead {
    seq: u64,
    record: StateRecord,
    bodies: Vec<BodyHead>,
}

/// What facts begin with, where a mutation would begin with its format byte.
const FACTS: u8 = 0;

/// A commit as bytes.
pub fn to_bytes(facts: &Facts, mutations: &[Mutation]) -> Bytes {
    let bodies = mutations.iter().flat_map(|mutation| &mutation.bodies);
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
    bytes.into()
}

/// A commit, read back.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are something else.
pub fn from_bytes(mut bytes: Bytes) -> Result<(Facts, Vec<Mutation>), StoreError> {
    let (mut facts, mut mutations) = (Facts::default(), Vec::new());
    if bytes.first() == Some(&FACTS) {
        let _ = bytes.split_to(1);
        let (read, used) = decode_prefix(&bytes)?;
        let _ = bytes.split_to(used);
        facts = read;
    }
    while !bytes.is_empty() {
        let (head, used): (MutationHead, usize) = decode_prefix(&bytes)?;
        let _ = bytes.split_to(used);
        let bodies = head.bodies.into_iter().map(|body| {
            Body::take(body, &mut bytes)
                .ok_or_else(|| StoreError::damaged("an entry of the log ends too early"))
        });
        let bodies = bodies.collect::<Result<_, _>>()?;
        mutations.push(Mutation {
            key: head.record.key(),
            seq: head.seq,
            record: head.record,
            bodies,
        });
    }
    Ok((facts, mutations))
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
        let facts = Facts {
            forgotten: vec![Epoch(7)],
            ..Facts::default()
        };
        let bytes = to_bytes(&facts, &mutations);
        let read = from_bytes(bytes.clone()).unwrap();
        assert_eq!(read, (facts.clone(), mutations.to_vec()));
        let whole = [0, 1, 2].map(|count| to_bytes(&facts, &mutations[..count]).len());
        let plain = to_bytes(&Facts::default(), &mutations);
        assert_eq!(from_bytes(plain).unwrap().1, mutations);
        for cut in 1..bytes.len() {
            assert_eq!(from_bytes(bytes.slice(..cut)).is_ok(), whole.contains(&cut));
        }
    }
}
