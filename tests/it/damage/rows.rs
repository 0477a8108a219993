//! Damage to single rows, by table: bits that flip and rows that go, in places that the engine's own
//! checksums then call intact.

use std::path::Path;

use redb::{Database, Key, ReadableTable, TableDefinition, Value};

use crate::damage::stores::file_of;
use crate::harness::Rng;

type Bytes = &'static [u8];
type Hash = &'static [u8; 32];

/// What is done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hurt {
    /// One bit of its value is another.
    Flip,
    /// It is gone.
    Remove,
}

/// Every table, by name.
pub const TABLES: [&str; 10] = [
    "records",
    "ids",
    "contents",
    "chunks",
    "chunk_references",
    "history",
    "changes",
    "nodes",
    "roots",
    "meta",
];

/// Hurts one row of a table; false when the table has none.
pub fn hurt(dir: &Path, table: &str, how: Hurt, rng: &mut Rng) -> bool {
    let database = Database::create(file_of(dir)).unwrap();
    match table {
        "ids" => remove_one::<&str, ()>(&database, table, rng),
        "chunk_references" => with_row::<Hash, u64>(&database, table, how, rng, |count| {
            let other = *count ^ 4;
            *count = other;
        }),
        "changes" => remove_one::<u64, Hash>(&database, table, rng),
        "history" => flip::<(Hash, u64)>(&database, table, how, rng),
        "nodes" | "roots" => flip::<(u8, u64)>(&database, table, how, rng),
        "meta" => flip_named(&database, "head", how, rng),
        _ => flip::<Hash>(&database, table, how, rng),
    }
}

fn chosen<K: Key + 'static, V: Value + 'static>(
    database: &Database,
    table: &str,
    rng: &mut Rng,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let definition: TableDefinition<'_, K, V> = TableDefinition::new(table);
    let transaction = database.begin_write().unwrap();
    let rows: Vec<(Vec<u8>, Vec<u8>)> = {
        let table = transaction.open_table(definition).unwrap();
        let rows = table.iter().unwrap().map(|row| {
            let (key, value) = row.unwrap();
            let key = K::as_bytes(&key.value()).as_ref().to_vec();
            (key, V::as_bytes(&value.value()).as_ref().to_vec())
        });
        rows.collect()
    };
    transaction.abort().unwrap();
    (!rows.is_empty()).then(|| rows[rng.below(rows.len())].clone())
}

fn remove_one<K: Key + 'static, V: Value + 'static>(
    database: &Database,
    table: &str,
    rng: &mut Rng,
) -> bool {
    let Some((key, _)) = chosen::<K, V>(database, table, rng) else {
        return false;
    };
    let definition: TableDefinition<'_, K, V> = TableDefinition::new(table);
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(definition)
        .unwrap()
        .remove(K::from_bytes(&key))
        .unwrap();
    transaction.commit().unwrap();
    true
}

fn with_row<K: Key + 'static, V: for<'v> Value<SelfType<'v> = u64> + 'static>(
    database: &Database,
    table: &str,
    how: Hurt,
    rng: &mut Rng,
    change: impl FnOnce(&mut u64),
) -> bool {
    if how == Hurt::Remove {
        return remove_one::<K, V>(database, table, rng);
    }
    let Some((key, value)) = chosen::<K, V>(database, table, rng) else {
        return false;
    };
    let mut number = u64::from_le_bytes(value.try_into().unwrap());
    change(&mut number);
    let definition: TableDefinition<'_, K, V> = TableDefinition::new(table);
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(definition)
        .unwrap()
        .insert(K::from_bytes(&key), number)
        .unwrap();
    transaction.commit().unwrap();
    true
}

fn flip<K: Key + 'static>(database: &Database, table: &str, how: Hurt, rng: &mut Rng) -> bool {
    if how == Hurt::Remove {
        return remove_one::<K, Bytes>(database, table, rng);
    }
    let Some((key, mut value)) = chosen::<K, Bytes>(database, table, rng) else {
        return false;
    };
    let bit = rng.below(value.len() * 8);
    value[bit / 8] ^= 1 << (bit % 8);
    let definition: TableDefinition<'_, K, Bytes> = TableDefinition::new(table);
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(definition)
        .unwrap()
        .insert(K::from_bytes(&key), &value[..])
        .unwrap();
    transaction.commit().unwrap();
    true
}

fn flip_named(database: &Database, name: &str, how: Hurt, rng: &mut Rng) -> bool {
    const META: TableDefinition<'_, &str, Bytes> = TableDefinition::new("meta");
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        let mut value = meta.get(name).unwrap().unwrap().value().to_vec();
        if how == Hurt::Remove {
            meta.remove(name).unwrap();
        } else {
            let bit = rng.below(value.len() * 8);
            value[bit / 8] ^= 1 << (bit % 8);
            meta.insert(name, &value[..]).unwrap();
        }
    }
    transaction.commit().unwrap();
    true
}

/// Flips a bit in the last byte of a row under a hash, where the bytes of a state stand, or removes
/// the row.
pub fn hurt_row(dir: &Path, table: &str, key: &[u8; 32], how: Hurt) {
    let definition: TableDefinition<'_, Hash, Bytes> = TableDefinition::new(table);
    let database = Database::create(file_of(dir)).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(definition).unwrap();
        let row = rows.remove(key).unwrap();
        let mut row = row.unwrap().value().to_vec();
        if how == Hurt::Flip {
            *row.last_mut().unwrap() ^= 1;
            rows.insert(key, &row[..]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// The hashes of the chunks that a file has.
pub fn chunks_of(dir: &Path) -> Vec<[u8; 32]> {
    let definition: TableDefinition<'_, Hash, Bytes> = TableDefinition::new("chunks");
    let database = Database::create(file_of(dir)).unwrap();
    let transaction = database.begin_write().unwrap();
    let keys: Vec<[u8; 32]> = {
        let rows = transaction.open_table(definition).unwrap();
        let rows = rows.iter().unwrap();
        rows.map(|row| *row.unwrap().0.value()).collect()
    };
    transaction.abort().unwrap();
    keys
}
