//! Every table of a namespace's file, in one place: its name, its keys and its values.

use redb::{ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, TableDefinition, Value};

use crate::store::backend::{OpenFile, Reader};
use crate::store::error::StoreError;
use crate::store::forms::{KeyForm, RowBytes, RowForm};
use crate::store::layer::Layer;

/// The engine's type of a table's keys.
pub type EngineKey<T> = <<T as Table>::Key as KeyForm>::Engine;
/// The engine's type of a table's values.
pub type EngineRow<T> = <<T as Table>::Row as RowForm>::Engine;
/// A key of a table as the engine hands it out.
pub type KeyRef<'a, T> = <EngineKey<T> as Value>::SelfType<'a>;
/// A value of a table as the engine hands it out.
pub type RowRef<'a, T> = <EngineRow<T> as Value>::SelfType<'a>;

/// A table of the engine, opened for reading.
pub type EngineTable<T> = ReadOnlyTable<EngineKey<T>, EngineRow<T>>;

/// A table: rows in memory in front of rows in the engine.
pub trait Table: Sized + 'static {
    /// Its keys.
    type Key: KeyForm;
    /// Its values.
    type Row: RowForm;
    /// What the engine knows it as.
    const DEFINITION: TableDefinition<'static, EngineKey<Self>, EngineRow<Self>>;
    /// True when its rows are spread over the files of a namespace's shards.
    const IS_SHARDED: bool;

    /// The table's rows among those in memory.
    fn layer(layers: &Layers) -> &Layer<Self::Key, Self::Row>;
    /// The table among those opened for reading.
    fn engine(tables: &FileTables) -> &EngineTable<Self>;
}

/// Where the rows of a table are.
enum Spread {
    /// In the file of their shard.
    Shards,
    /// In the first file.
    First,
}

macro_rules! tables {
    ($($(#[doc = $doc:literal])+ $name:ident, $field:ident: $key:ty => $row:ty, $spread:ident;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl Table for $name {
                type Key = $key;
                type Row = $row;
                const DEFINITION: TableDefinition<'static, EngineKey<Self>, EngineRow<Self>> =
                    TableDefinition::new(stringify!($field));
                const IS_SHARDED: bool = matches!(Spread::$spread, Spread::Shards);

                fn layer(layers: &Layers) -> &Layer<Self::Key, Self::Row> {
                    &layers.$field
                }

                fn engine(tables: &FileTables) -> &EngineTable<Self> {
                    &tables.$field
                }
            }
        )+

        /// All tables of one file, opened for reading at one commit of the engine.
        pub struct FileTables {
            $($field: EngineTable<$name>,)+
            /// Keeps a file that was compacted open, too.
            reader: Reader,
        }

        impl FileTables {
            /// Opens all tables at the newest commit, whose pages they keep.
            ///
            /// # Errors
            /// [`StoreError`] when the engine fails or a table is missing.
            pub fn open(file: &OpenFile) -> Result<Self, StoreError> {
                let transaction = file.database.begin_read()?;
                Ok(Self {
                    $($field: transaction.open_table($name::DEFINITION)?,)+
                    reader: file.reader(),
                })
            }

            /// Reads of the file by anybody that had to wait for the disk, about.
            pub fn slow_reads(&self) -> u64 {
                self.reader.slow_reads()
            }

            /// Bytes of all keys and rows. Looks at every page.
            ///
            /// # Errors
            /// [`StoreError`] when the engine fails.
            pub fn stored_bytes(&self) -> Result<u64, StoreError> {
                Ok([$(self.$field.stats()?.stored_bytes(),)+].iter().sum())
            }
        }

        /// The rows of all tables that are in memory only.
        #[derive(Default)]
        pub struct Layers {
            $($field: Layer<$key, $row>,)+
        }

        /// Work that is done on each table in turn.
        pub trait ForEachTable {
            /// Does the work on one table.
            ///
            /// # Errors
            /// Whatever the work runs into; the tables behind are left out then.
            fn visit<T: Table>(&mut self) -> Result<(), StoreError>;
        }

        /// Does a piece of work on every table, in the order in which they stand here.
        ///
        /// # Errors
        /// The first that the work returns.
        pub fn for_each_table(work: &mut impl ForEachTable) -> Result<(), StoreError> {
            $(work.visit::<$name>()?;)+
            Ok(())
        }
    };
}

tables! {
    /// State key -> record row. Ordered by key, so a Merkle bucket is one range scan.
    Records, records: [u8; 32] => RowBytes, Shards;
    /// Id -> nothing: listings in order of id. The state key is the id's hash. Written only when a
    /// state is first seen.
    Ids, ids: String => (), First;
    /// Content hash -> content row: reference count, and the bytes or the list of chunks.
    Contents, contents: [u8; 32] => RowBytes, Shards;
    /// Chunk hash -> packed chunk.
    Chunks, chunks: [u8; 32] => RowBytes, Shards;
    /// Chunk hash -> reference count. Apart from the chunks, so that a new version that shares a
    /// chunk does not write the chunk again.
    ChunkReferences, chunk_references: [u8; 32] => u64, Shards;
    /// (State key, change that superseded them) -> versions that are no longer current.
    History, history: ([u8; 32], u64) => RowBytes, Shards;
    /// Change feed: seq -> state key, exactly one entry a state.
    Changes, changes: u64 => [u8; 32], First;
    /// (Depth, leading bits) -> Merkle row.
    Nodes, nodes: (u8, u64) => RowBytes, Shards;
    /// (Moment in milliseconds, state key) -> nothing: when something of a state is to be collected.
    /// At moment 0 stand contents that are being given up, under their hashes.
    Deadlines, deadlines: (u64, [u8; 32]) => (), First;
    /// (0, place) -> entry of the log of roots; (height, place) -> node above the entries.
    Roots, roots: (u8, u64) => RowBytes, First;
    /// (Stage key, 0) -> how far a stage has come; (stage key, row) -> a part of its list of chunks.
    Stages, stages: ([u8; 32], u64) => RowBytes, First;
    /// Replica id of a peer -> what we last agreed on with it.
    Peers, peers: u64 => RowBytes, First;
    /// Facts about the file and its newest commit, by name.
    Meta, meta: String => RowBytes, First;
}

/// Names in the meta table.
pub mod meta_names {
    /// [`crate::store::rows::Identity`].
    pub const IDENTITY: &str = "identity";
    /// [`crate::store::rows::Head`].
    pub const HEAD: &str = "head";
    /// [`crate::types::lineage::Provenance`].
    pub const PROVENANCE: &str = "provenance";
    /// [`crate::store::shard_set::Member`].
    pub const SHARD: &str = "shard";
    /// Present while the Merkle rows are those of an older layout.
    pub const TREE_IS_DUE: &str = "tree_is_due";
    /// In front of the epoch of a [`crate::types::lineage::Sighting`].
    pub const SEEN: &str = "seen/";
    /// [`crate::store::root_log::RootLogMark`].
    pub const ROOTS: &str = "roots";
    /// In front of the key that signed a [`crate::roots::witness::Witnessed`].
    pub const WITNESSED: &str = "witnessed/";
    /// In front of the key that an [`crate::roots::witness::Accusation`] is against, and its kind.
    pub const ACCUSED: &str = "accused/";
    /// [`crate::types::seen::Seen`]; for own writes how far they have been collected.
    pub const TAKEN_IN: &str = "taken_in";
}
