//! References to contents and chunks: whatever happens to states, they are counted right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use samestate::replica::check::check;
use samestate::replica::findings::Fault;
use samestate::store::body::{Body, WHOLE_BYTES_MAX};
use samestate::store::error::StoreError;
use samestate::store::open::Store;
use samestate::store::options::StoreOptions;
use samestate::store::rows::{Placed, Placement, RecordRow};
use samestate::store::write::Tables;
use samestate::types::cursor::Epoch;
use samestate::types::hash::{ContentHash, StateKey};
use samestate::types::id::{GameId, Namespace, ReplicaId, WriterId};
use samestate::types::record::StateRecord;
use samestate::types::version::{Stamp, Version, VersionVector};

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
        Some(bytes) => tables.place(&Body::new(bytes)).unwrap(),
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
    tables.put_record(&row, previous.as_ref());
    if !superseded.is_empty() {
        tables.remember(&key, seq, &superseded).unwrap();
    }
}

/// Faults in what these tests write; the tree and the head are of another layer.
fn faults(store: &Store) -> Vec<Fault> {
    let report = check(
        &store.snapshot(),
        &Namespace::default_namespace(),
        &mut |_| {},
    )
    .unwrap();
    let mut faults = report.faults;
    faults.retain(|fault| !matches!(fault.kind, "node" | "head"));
    faults
}

/// Reference counts of all contents, and the number of chunks.
fn counts(store: &Store) -> (BTreeMap<ContentHash, u64>, usize) {
    let (snapshot, mut contents, mut chunks) = (store.snapshot(), BTreeMap::new(), 0);
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
        let (mut store, _file) = Store::open(&path, ReplicaId(1), Epoch(1), options).unwrap();
        let mut seq = 0;
        for part in steps.chunks(together) {
            let written = store.change(|tables| {
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
        let snapshot = store.snapshot();
        let visited = snapshot.visit_history(&mut |key, _| {
            *remembered.entry(key).or_default() += 1;
        });
        visited.unwrap();
        prop_assert!(remembered.values().all(|changes| *changes <= history_versions));

        // Once everything is deleted and forgotten nothing is left behind.
        let forgotten = store.change(|tables| {
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
    let (mut store, _file) = Store::open(&path, ReplicaId(1), Epoch(1), options).unwrap();
    let written = store.change(|tables| {
        take(tables, 1, 0, Step::Put(7), &pool);
        Ok(())
    });
    written.unwrap();
    let before = counts(&store);
    let failed: Result<(), StoreError> = store.change(|tables| {
        take(tables, 2, 0, Step::Put(8), &pool);
        take(tables, 3, 1, Step::Put(7), &pool);
        Err(StoreError::Full)
    });
    assert!(failed.is_err());
    assert_eq!(counts(&store), before);
    assert_eq!(faults(&store), []);
}
