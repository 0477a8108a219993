//! Reading everything and comparing it: bodies against hashes, counts against references, Merkle
//! rows against a full rebuild, feed and ids against records. Finds faults, changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;

use crate::merkle::node::Summary;
use crate::merkle::prefix::Prefix;
use crate::merkle::storage::{TreeStorage, TreeStorageMut};
use crate::merkle::update::{Work, rebuild};
use crate::replica::check_roots::{check_root_log, check_witnessed};
use crate::replica::check_stages::check_stages;
use crate::replica::findings::CheckReport;
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::rows::{ContentBody, Head, Placement, RecordRow};
use crate::types::hash::{ChunkHash, ContentHash, StateKey};
use crate::types::id::{GameId, Namespace};
use crate::types::leaf::Leaf;
use crate::types::version::Version;

/// Checks everything in a snapshot. `progress` is told how many state bytes have been
/// read so far. What depends on a table that cannot be read to its end is not compared.
///
/// # Errors
/// [`StoreError`] when the disk fails; damage is reported, not an error.
pub fn check(
    snapshot: &Snapshot,
    namespace: &Namespace,
    progress: &mut dyn FnMut(u64),
) -> Result<CheckReport, StoreError> {
    let mut check = Check::new(snapshot, namespace, &|| true);
    check.run(progress)?;
    Ok(check.report)
}

/// As [`check`], as long as `go_on` says so; `None` when it was broken off.
///
/// # Errors
/// As [`check`].
pub fn check_while(
    snapshot: &Snapshot,
    namespace: &Namespace,
    progress: &mut dyn FnMut(u64),
    go_on: &dyn Fn() -> bool,
) -> Result<Option<CheckReport>, StoreError> {
    let mut check = Check::new(snapshot, namespace, go_on);
    check.run(progress)?;
    Ok(go_on().then_some(check.report))
}

struct Check<'s> {
    snapshot: &'s Snapshot,
    namespace: &'s Namespace,
    go_on: &'s dyn Fn() -> bool,
    leaves: Vec<Leaf>,
    seqs: HashMap<StateKey, u64>,
    /// True when all records, and then all of everything up to here, could be read.
    has_records: bool,
    has_all: bool,
    references: HashMap<ContentHash, u64>,
    chunk_references: HashMap<ChunkHash, u64>,
    /// What is to be collected when.
    due: BTreeSet<(u64, [u8; 32])>,
    /// Newest moment known to the store: what expired before need not have bytes.
    clock: u64,
    root: Summary,
    report: CheckReport,
}

impl<'s> Check<'s> {
    fn new(snapshot: &'s Snapshot, namespace: &'s Namespace, go_on: &'s dyn Fn() -> bool) -> Self {
        Self {
            snapshot,
            namespace,
            go_on,
            leaves: Vec::new(),
            seqs: HashMap::new(),
            has_records: true,
            has_all: true,
            references: HashMap::new(),
            chunk_references: HashMap::new(),
            due: BTreeSet::new(),
            clock: 0,
            root: Summary::EMPTY,
            report: CheckReport::default(),
        }
    }

    fn run(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        self.clock = self.snapshot.head()?.clock;
        self.records(progress)?;
        self.history()?;
        if !(self.go_on)() {
            return Ok(());
        }
        self.contents()?;
        self.stages()?;
        self.chunks()?;
        self.ids()?;
        self.feed()?;
        self.deadlines()?;
        self.nodes()?;
        let head = self.head()?;
        self.root_log(head.as_ref())
    }

    fn fault(&mut self, kind: &'static str, what: &dyn Display, detail: &dyn Display) {
        self.report.fault(kind, what, detail);
    }

    /// True when a table could be read to its end.
    fn whole(
        &mut self,
        table: &'static str,
        read: Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        match read {
            Ok(()) => Ok(true),
            Err(StoreError::Damaged(what)) => {
                let detail = format!("its rows cannot be read to the end: {what}");
                self.fault("engine", &format!("table {table}"), &detail);
                self.has_all = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn records(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let snapshot = self.snapshot;
        let read = snapshot.visit_records(&mut |key, row| {
            if !(self.go_on)() {
                return;
            }
            self.report.records += 1;
            match row {
                Ok(row) => self.record(key, &row),
                Err(error) => self.fault("record", &key, &error.bare()),
            }
            progress(self.report.bytes);
        });
        self.has_records = self.whole("records", read)?;
        Ok(())
    }

    fn record(&mut self, key: StateKey, row: &RecordRow) {
        let id = &row.record.id;
        let leaf = row.record.leaf();
        if leaf.key != key {
            self.fault(
                "record",
                id,
                &"stands under a key that is not the hash of its id",
            );
        }
        if leaf != row.leaf {
            self.fault(
                "record",
                id,
                &"its digest, size or time is not that of its versions",
            );
        }
        if let Err(error) = row.record.check() {
            self.fault("record", id, &error);
        }
        self.leaves.push(row.leaf);
        self.seqs.insert(key, row.seq);
        self.report.states += u64::from(row.is_live());
        self.due.extend(row.due().map(|at| (at, key.0)));
        for (version, placement) in row.placed() {
            self.version("content", id.as_str(), version, placement);
        }
    }

    /// Reads a version's bytes, shared ones once.
    fn version(&mut self, kind: &'static str, id: &str, version: &Version, placement: &Placement) {
        let is_bare = *placement == Placement::Nothing;
        let may_be_bare = version.is_dead(self.clock);
        if (is_bare && !may_be_bare) || (!is_bare && version.tombstone) {
            self.fault(kind, &id, &"a deletion has bytes, or a version has none");
        }
        if *placement == Placement::Shared {
            let count = self.references.entry(version.content).or_insert(0);
            *count += 1;
            if *count > 1 {
                return;
            }
        }
        match self.snapshot.check_content(version, placement) {
            Ok(bytes) => {
                self.report.versions += 1;
                self.report.bytes += bytes;
            }
            Err(error) => self.fault(kind, &id, &error.bare()),
        }
    }

    fn history(&mut self) -> Result<(), StoreError> {
        let snapshot = self.snapshot;
        let read = snapshot.visit_history(&mut |key, row| {
            if !(self.go_on)() {
                return;
            }
            if self.has_records && !self.seqs.contains_key(&key) {
                self.fault("history", &key, &"remembers a state that has no record");
            }
            match row {
                Ok(entries) => {
                    for entry in entries {
                        let what = key.to_string();
                        self.version("history", &what, &entry.version, &entry.placement);
                    }
                }
                Err(error) => self.fault("history", &key, &error.bare()),
            }
        });
        self.whole("history", read)?;
        Ok(())
    }

    fn contents(&mut self) -> Result<(), StoreError> {
        let (snapshot, has_all) = (self.snapshot, self.has_all);
        let read = snapshot.visit_contents(&mut |hash, row| match row {
            Ok(row) => {
                let counted = self.references.remove(&hash).unwrap_or(0);
                if has_all && counted != row.references {
                    let stored = row.references;
                    let detail = format!("counts {stored} references, there are {counted}");
                    self.fault("content", &hash, &detail);
                }
                if row.references == 0 {
                    self.due.insert((0, hash.0));
                }
                if let ContentBody::Chunks(list) = row.body {
                    for (chunk, _) in list {
                        *self.chunk_references.entry(chunk).or_insert(0) += 1;
                    }
                }
            }
            Err(error) => {
                self.references.remove(&hash);
                self.fault("content", &hash, &error.bare());
            }
        });
        if !self.whole("contents", read)? {
            return Ok(());
        }
        for hash in std::mem::take(&mut self.references).into_keys() {
            self.fault("content", &hash, &"is referred to, but missing");
        }
        Ok(())
    }

    fn stages(&mut self) -> Result<(), StoreError> {
        let (report, references) = (&mut self.report, &mut self.chunk_references);
        let read = check_stages(self.snapshot, report, references);
        self.whole("stages", read)?;
        Ok(())
    }

    fn chunks(&mut self) -> Result<(), StoreError> {
        let snapshot = self.snapshot;
        let mut stored = HashMap::new();
        let read = snapshot.visit_chunk_references(&mut |hash, count| {
            stored.insert(hash, count);
        });
        self.whole("chunk_references", read)?;
        let has_all = self.has_all;
        let read = snapshot.visit_chunks(&mut |hash, _| {
            self.report.chunks += 1;
            if !has_all {
                return;
            }
            let counted = self.chunk_references.remove(&hash).unwrap_or(0);
            let stored = stored.remove(&hash).unwrap_or(0);
            if counted != stored {
                let detail = format!("counts {stored} references, there are {counted}");
                self.fault("chunk", &hash, &detail);
            }
        });
        if !self.whole("chunks", read)? || !has_all {
            return Ok(());
        }
        for hash in std::mem::take(&mut self.chunk_references).into_keys() {
            self.fault("chunk", &hash, &"is referred to, but missing");
        }
        for hash in stored.into_keys() {
            self.fault("chunk", &hash, &"has a reference count, but is missing");
        }
        Ok(())
    }

    fn ids(&mut self) -> Result<(), StoreError> {
        let snapshot = self.snapshot;
        let mut count = 0;
        let read = snapshot.visit_ids(&mut |id, key| {
            count += 1;
            if self.has_records && !self.seqs.contains_key(&key) {
                self.fault("id", &id, &"has no record");
            }
            if GameId::new(id).map(|id| StateKey::of(&id)) != Ok(key) {
                self.fault("id", &id, &"stands with the key of another id");
            }
        });
        if self.whole("ids", read)? {
            self.same_count("id", "ids", count);
        }
        Ok(())
    }

    fn feed(&mut self) -> Result<(), StoreError> {
        let (mut seq, mut count) = (0, 0);
        loop {
            let mut entries = Vec::new();
            let read = self.snapshot.changes_after(seq, 4096);
            let read = read.map(|read| entries = read);
            if !self.whole("changes", read)? {
                return Ok(());
            }
            let Some((last, _)) = entries.last() else {
                break;
            };
            seq = *last;
            count += entries.len();
            for (at, key) in entries {
                if self.has_records && self.seqs.get(&key) != Some(&at) {
                    self.fault(
                        "feed",
                        &at,
                        &format!("the record of {key} stands elsewhere"),
                    );
                }
            }
        }
        self.same_count("feed", "feed entries", count);
        Ok(())
    }

    fn deadlines(&mut self) -> Result<(), StoreError> {
        let snapshot = self.snapshot;
        let mut due = std::mem::take(&mut self.due);
        if !self.has_records {
            return Ok(());
        }
        let read = snapshot.visit_deadlines(&mut |at, key| {
            if !due.remove(&(at, *key)) {
                let what = StateKey(*key);
                self.fault("deadline", &what, &format!("nothing is due at {at}"));
            }
        });
        if !self.whole("deadlines", read)? {
            return Ok(());
        }
        for (at, key) in due {
            let what = StateKey(key);
            self.fault(
                "deadline",
                &what,
                &format!("what is due at {at} is not listed"),
            );
        }
        Ok(())
    }

    fn same_count(&mut self, kind: &'static str, what: &str, count: usize) {
        let records = self.seqs.len();
        if self.has_records && count != records {
            let detail = format!("there are {count} {what} and {records} records");
            self.fault(kind, &what, &detail);
        }
    }

    fn nodes(&mut self) -> Result<(), StoreError> {
        if !self.has_records {
            return Ok(());
        }
        let mut rebuilt = RebuiltRows::default();
        let leaves = std::mem::take(&mut self.leaves);
        let mut work = Work::default();
        let top = rebuild(&mut rebuilt, leaves.into_iter().map(Ok), &mut work)?;
        self.root = top.root();
        self.report.root = self.root.hash.to_hex();
        let snapshot = self.snapshot;
        let read = snapshot.visit_nodes(&mut |depth, bits, row| {
            self.report.nodes += 1;
            let expected = rebuilt.0.remove(&(depth, bits));
            if expected.as_deref() != Some(row) {
                let place = format!("depth {depth}, prefix {bits:016x}");
                self.fault("node", &place, &"is not what a rebuild gives");
            }
        });
        if !self.whole("nodes", read)? {
            return Ok(());
        }
        for (depth, bits) in rebuilt.0.into_keys() {
            let place = format!("depth {depth}, prefix {bits:016x}");
            self.fault("node", &place, &"is missing");
        }
        Ok(())
    }

    fn head(&mut self) -> Result<Option<Head>, StoreError> {
        let head: Head = match self.snapshot.head() {
            Ok(head) => head,
            Err(StoreError::Damaged(what)) => {
                self.fault("head", &"head", &what);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !self.has_records {
            return Ok(Some(head));
        }
        if head.root != self.root {
            let detail = format!(
                "says {}, a rebuild gives {}",
                head.root.hash, self.root.hash
            );
            self.fault("head", &"root", &detail);
        }
        if head.live != self.report.states {
            let detail = format!("says {}, there are {}", head.live, self.report.states);
            self.fault("head", &"states", &detail);
        }
        let newest = self.seqs.values().copied().max().unwrap_or(0);
        if newest > head.seq {
            let detail = format!("says {}, the newest change is {newest}", head.seq);
            self.fault("head", &"seq", &detail);
        }
        Ok(Some(head))
    }

    fn root_log(&mut self, head: Option<&Head>) -> Result<(), StoreError> {
        let (snapshot, namespace) = (self.snapshot, self.namespace);
        let identity = snapshot.identity()?;
        let stands = identity.as_ref().zip(head);
        let read = check_root_log(snapshot, stands, &mut self.report, self.go_on);
        self.whole("roots", read)?;
        let read = check_witnessed(snapshot, namespace, &mut self.report);
        self.whole("meta", read)?;
        Ok(())
    }
}

/// Takes the rows of a rebuild.
#[derive(Default)]
struct RebuiltRows(BTreeMap<(u8, u64), Vec<u8>>);

impl TreeStorage for RebuiltRows {
    type Error = StoreError;

    fn row(&self, at: Prefix) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&(at.depth(), at.bits())).cloned())
    }

    fn top_rows(&self, _visit: &mut dyn FnMut(Prefix, &[u8])) -> Result<(), StoreError> {
        Ok(())
    }

    fn leaves(&self, _within: Prefix) -> Result<Vec<Leaf>, StoreError> {
        Ok(Vec::new())
    }
}

impl TreeStorageMut for RebuiltRows {
    fn set_row(&mut self, at: Prefix, row: &[u8]) -> Result<(), StoreError> {
        self.0.insert((at.depth(), at.bits()), row.to_vec());
        Ok(())
    }

    fn remove_row(&mut self, at: Prefix) -> Result<(), StoreError> {
        self.0.remove(&(at.depth(), at.bits()));
        Ok(())
    }
}
