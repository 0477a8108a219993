//! What an operator can do to the log of roots in a file of a replica that is stopped.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition};
use samestate::roots::entry::RootEntry;
use samestate::roots::peaks::Peaks;
use samestate::store::root_log::RootLogMark;
use samestate::types::binary::encode;

const ROOTS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("roots");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Rows of the log by height and place.
pub type Rows = BTreeMap<(u8, u64), Vec<u8>>;

/// Changes rows of the log, and nothing that follows from them.
pub fn edit_rows(file: &Path, change: impl FnOnce(&mut Rows)) {
    let database = Database::open(file).unwrap();
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    {
        let mut table = transaction.open_table(ROOTS).unwrap();
        let rows = table.iter().unwrap().map(|row| {
            let (key, value) = row.unwrap();
            (key.value(), value.value().to_vec())
        });
        let mut rows: Rows = rows.collect();
        let before: Vec<(u8, u64)> = rows.keys().copied().collect();
        change(&mut rows);
        for key in before {
            table.remove(key).unwrap();
        }
        for (key, row) in &rows {
            table.insert(*key, &row[..]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// Changes entries, and everything that follows from them, so that the log looks like any other.
pub fn edit(file: &Path, change: impl FnOnce(&mut Vec<RootEntry>)) {
    let mut peaks = Peaks::default();
    edit_rows(file, |rows| {
        let entries = rows.iter().filter(|((height, _), _)| *height == 0);
        let entries = entries.map(|(_, row)| RootEntry::from_bytes(row).unwrap());
        let mut entries: Vec<RootEntry> = entries.collect();
        change(&mut entries);
        rows.clear();
        for entry in &entries {
            rows.insert((0, peaks.size()), entry.to_bytes().to_vec());
            let nodes = peaks.push(entry.leaf()).into_iter();
            rows.extend(nodes.map(|node| ((node.height, node.place), node.hash.0.to_vec())));
        }
    });
    set_mark(
        file,
        &RootLogMark {
            size: peaks.size(),
            hash: peaks.hash().unwrap(),
            is_past: false,
        },
    );
}

/// Changes what is told of the log beside its rows.
pub fn set_mark(file: &Path, mark: &RootLogMark) {
    set_meta(file, "roots", &encode(mark));
}

/// Changes a row of the table of facts.
pub fn set_meta(file: &Path, name: &str, row: &[u8]) {
    let database = Database::open(file).unwrap();
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    transaction
        .open_table(META)
        .unwrap()
        .insert(name, row)
        .unwrap();
    transaction.commit().unwrap();
}
