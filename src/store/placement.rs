//! Where the bytes of states go: small ones into their row, others once for each content hash,
//! large ones in content-defined chunks that versions and states share.

use redb::ReadableTable;
use tracing::error;

use crate::delta::chunker::chunks;
use crate::delta::compress::pack;
use crate::store::error::StoreError;
use crate::store::rows::{ContentBody, ContentRow, Placement};
use crate::store::write::Tables;
use crate::types::hash::{ChunkHash, ContentHash};

/// Contents above this many bytes are cut into chunks. The engine stores a value in a
/// power-of-two run of 4 KiB pages, so values are kept just below 16 KiB.
pub const WHOLE_BYTES_MAX: usize = 15_800;

impl Tables<'_> {
    /// Stores the bytes of a version that is about to be referred to once more. Bytes that are
    /// there already are compared with those at hand and put right if they differ, so that no
    /// write is acknowledged onto damage.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn place(&mut self, hash: &ContentHash, bytes: &[u8]) -> Result<Placement, StoreError> {
        let fits_whole = bytes.len() <= WHOLE_BYTES_MAX;
        let packed = if fits_whole { pack(bytes) } else { Vec::new() };
        if fits_whole && packed.len() <= self.options.inline_bytes {
            return Ok(Placement::Inline(packed));
        }
        let known = self.content_row(hash)?;
        let references = known.as_ref().map_or(0, |row| row.references);
        let body = if fits_whole {
            ContentBody::Packed(packed)
        } else {
            ContentBody::Chunks(self.store_chunks(bytes, references == 0)?)
        };
        let row = ContentRow {
            references: references + 1,
            size: bytes.len() as u64,
            body,
        };
        self.contents.insert(&hash.0, row.to_bytes().as_slice())?;
        Ok(Placement::Shared)
    }

    /// Gives up one reference; bytes that nobody refers to any more are removed. A content that is
    /// gone already is no reason to fail a write: `samestate verify` names it.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn release(&mut self, hash: &ContentHash, placement: &Placement) -> Result<(), StoreError> {
        if *placement != Placement::Shared {
            return Ok(());
        }
        let Some(mut row) = self.content_row(hash)? else {
            error!(content = %hash, "a content to be released is missing or damaged");
            return Ok(());
        };
        if row.references > 1 {
            row.references -= 1;
            self.contents.insert(&hash.0, row.to_bytes().as_slice())?;
            return Ok(());
        }
        self.contents.remove(&hash.0)?;
        if let ContentBody::Chunks(list) = row.body {
            for (chunk, _) in list {
                self.release_chunk(&chunk)?;
            }
        }
        Ok(())
    }

    /// The row of a content; `None` when there is none, or a damaged one.
    fn content_row(&self, hash: &ContentHash) -> Result<Option<ContentRow>, StoreError> {
        let value = self.contents.get(&hash.0)?;
        Ok(value.and_then(|row| ContentRow::from_bytes(row.value()).ok()))
    }

    /// Stores what is lacking of the chunks. With `count` each of them is referred to once more.
    fn store_chunks(
        &mut self,
        bytes: &[u8],
        count: bool,
    ) -> Result<Vec<(ChunkHash, u32)>, StoreError> {
        let mut list = Vec::new();
        for range in chunks(bytes) {
            let chunk = &bytes[range];
            let hash = ChunkHash::of(chunk);
            let packed = pack(chunk);
            let stored = self.chunks.get(&hash.0)?;
            let intact = stored.is_some_and(|stored| stored.value() == packed);
            if !intact {
                self.chunks.insert(&hash.0, packed.as_slice())?;
            }
            if count {
                let references = self.references_of(&hash)?;
                self.chunk_references.insert(&hash.0, references + 1)?;
            }
            list.push((hash, chunk.len() as u32));
        }
        Ok(list)
    }

    fn release_chunk(&mut self, hash: &ChunkHash) -> Result<(), StoreError> {
        let references = self.references_of(hash)?;
        if references > 1 {
            self.chunk_references.insert(&hash.0, references - 1)?;
        } else {
            self.chunk_references.remove(&hash.0)?;
            self.chunks.remove(&hash.0)?;
        }
        Ok(())
    }

    fn references_of(&self, hash: &ChunkHash) -> Result<u64, StoreError> {
        let count = self.chunk_references.get(&hash.0)?;
        Ok(count.map_or(0, |count| count.value()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::replica::check::{Fault, check};
    use crate::store::open::Store;
    use crate::store::options::StoreOptions;
    use crate::store::rows::{Placed, RecordRow};
    use crate::types::cursor::Epoch;
    use crate::types::hash::StateKey;
    use crate::types::id::{GameId, ReplicaId, WriterId};
    use crate::types::record::StateRecord;
    use crate::types::version::{Stamp, Version, VersionVector};

    /// Bytes that neither repeat nor shrink.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let blocks =
            (0u64..).flat_map(|n| ContentHash::of(&[seed, n].map(u64::to_le_bytes).concat()).0);
        blocks.take(length).collect()
    }

    /// One content of every kind: in the row, whole, in chunks, and in chunks shared with others.
    fn pool() -> Vec<Vec<u8>> {
        let large = noise(1, 60_000);
        let mut longer = large.clone();
        longer.extend(noise(2, 20_000));
        let mut twice = large.clone();
        twice.extend(&large);
        vec![
            Vec::new(),
            b"small".to_vec(),
            vec![7; 12_000],
            noise(3, 3_000),
            noise(4, WHOLE_BYTES_MAX),
            noise(5, WHOLE_BYTES_MAX + 1),
            large,
            longer,
            twice,
            vec![0; 200_000],
        ]
    }

    /// What happens to a state.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A content of the pool takes the place of everything that is current.
        Put(usize),
        /// A content of the pool becomes current beside what is.
        Join(usize),
        Delete,
    }

    fn steps() -> impl Strategy<Value = Vec<(u8, Step)>> {
        let contents = pool().len();
        let step = prop_oneof![
            4 => (0..contents).prop_map(Step::Put),
            2 => (0..contents).prop_map(Step::Join),
            1 => Just(Step::Delete),
        ];
        proptest::collection::vec((0u8..4, step), 1..60)
    }

    /// A version that nobody else made; `seq` tells it from all others.
    fn version(seq: u64, bytes: Option<&[u8]>) -> Version {
        let mut vector = VersionVector::default();
        vector.set(WriterId(seq), 1);
        Version {
            vector,
            stamp: Stamp {
                millis: seq,
                logical: 0,
                replica: ReplicaId(1),
            },
            content: bytes.map_or(ContentHash::NONE, ContentHash::of),
            size: bytes.map_or(0, |bytes| bytes.len() as u64),
            content_type: None,
            expires_at: None,
            tombstone: bytes.is_none(),
            lease_epoch: 0,
        }
    }

    fn id(state: u8) -> GameId {
        GameId::new(&format!("match/{state}")).unwrap()
    }

    fn take(tables: &mut Tables<'_>, seq: u64, state: u8, step: Step, pool: &[Vec<u8>]) {
        let id = id(state);
        let key = StateKey::of(&id);
        let previous = tables.record(&key).unwrap();
        let held: Vec<Placed> = previous
            .iter()
            .flat_map(RecordRow::placed)
            .map(|(version, placement)| Placed {
                version: version.clone(),
                placement: placement.clone(),
            })
            .collect();
        let bytes = match step {
            Step::Put(at) | Step::Join(at) => Some(&pool[at][..]),
            Step::Delete => None,
        };
        let new = version(seq, bytes);
        let placement = match bytes {
            Some(bytes) => tables.place(&new.content, bytes).unwrap(),
            None => Placement::Nothing,
        };
        let (mut current, superseded) = match step {
            Step::Join(_) => (held, Vec::new()),
            Step::Put(_) | Step::Delete => (Vec::new(), held),
        };
        current.push(Placed {
            version: new,
            placement,
        });
        let versions = current
            .iter()
            .map(|placed| placed.version.clone())
            .collect();
        let (record, seen) = StateRecord::from_versions(id, versions).unwrap();
        assert_eq!(seen, []);
        let placements = record.versions().iter().map(|version| {
            let placed = current.iter().find(|placed| placed.version == *version);
            placed.unwrap().placement.clone()
        });
        let row = RecordRow {
            leaf: record.leaf(),
            seq,
            placements: placements.collect(),
            record,
        };
        tables.put_record(&row, previous.as_ref()).unwrap();
        if !superseded.is_empty() {
            tables.remember(&key, seq, &superseded).unwrap();
        }
    }

    /// Faults in what these tests write; the tree and the head are of another layer.
    fn faults(store: &Store) -> Vec<Fault> {
        let report = check(&store.snapshot().unwrap(), &mut |_| {}).unwrap();
        let mut faults = report.faults;
        faults.retain(|fault| !matches!(fault.kind, "node" | "head"));
        faults
    }

    /// Reference counts of all contents, and the number of chunks.
    fn counts(store: &Store) -> (BTreeMap<ContentHash, u64>, usize) {
        let (snapshot, mut contents, mut chunks) = (store.snapshot().unwrap(), BTreeMap::new(), 0);
        let visited = snapshot.visit_contents(&mut |hash, row| {
            contents.insert(hash, row.unwrap().references);
        });
        visited.unwrap();
        snapshot.visit_chunks(&mut |_, _| chunks += 1).unwrap();
        (contents, chunks)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn references_are_counted_right_and_history_is_bounded(
            steps in steps(), history_versions in 0usize..4, together in 1usize..12
        ) {
            let (dir, pool) = (tempfile::tempdir().unwrap(), pool());
            let options = StoreOptions { history_versions, ..StoreOptions::default() };
            let path = dir.path().join("t.redb");
            let store = Store::open(&path, ReplicaId(1), Epoch(1), options).unwrap();
            let mut seq = 0;
            for part in steps.chunks(together) {
                let written = store.write(|tables| {
                    for (state, step) in part {
                        seq += 1;
                        take(tables, seq, *state, *step, &pool);
                    }
                    Ok(())
                });
                written.unwrap();
                prop_assert_eq!(faults(&store), vec![]);
            }
            let mut remembered: BTreeMap<StateKey, usize> = BTreeMap::new();
            let snapshot = store.snapshot().unwrap();
            let visited = snapshot.visit_history(&mut |key, _| {
                *remembered.entry(key).or_default() += 1;
            });
            visited.unwrap();
            prop_assert!(remembered.values().all(|changes| *changes <= history_versions));

            // Once everything is deleted and forgotten nothing is left behind.
            let forgotten = store.write(|tables| {
                for _ in 0..=history_versions {
                    for state in 0..4 {
                        seq += 1;
                        take(tables, seq, state, Step::Delete, &pool);
                    }
                }
                Ok(())
            });
            forgotten.unwrap();
            prop_assert_eq!(faults(&store), vec![]);
            prop_assert_eq!(counts(&store), (BTreeMap::new(), 0));
        }
    }

    #[test]
    fn a_write_that_fails_half_way_counts_nothing() {
        let (dir, pool) = (tempfile::tempdir().unwrap(), pool());
        let path = dir.path().join("t.redb");
        let options = StoreOptions::default();
        let store = Store::open(&path, ReplicaId(1), Epoch(1), options).unwrap();
        let written = store.write(|tables| {
            take(tables, 1, 0, Step::Put(7), &pool);
            Ok(())
        });
        written.unwrap();
        let before = counts(&store);
        let failed: Result<(), StoreError> = store.write(|tables| {
            take(tables, 2, 0, Step::Put(8), &pool);
            take(tables, 3, 1, Step::Put(7), &pool);
            Err(StoreError::Full)
        });
        assert!(failed.is_err());
        assert_eq!(counts(&store), before);
        assert_eq!(faults(&store), []);
    }
}
