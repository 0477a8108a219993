//! Every table of a namespace's file, in one place.

use redb::TableDefinition;

/// A table keyed by a SHA-256.
pub type ByHash = TableDefinition<'static, &'static [u8; 32], &'static [u8]>;

/// Facts about the file and its newest commit, by name.
pub const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// State key -> record row. Ordered by key, so a Merkle bucket is one range scan.
pub const RECORDS: ByHash = TableDefinition::new("records");
/// Id -> state key: listings in order of id. Written only when a state is first seen.
pub const IDS: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("ids");
/// Content hash -> content row: reference count, and the bytes or the list of chunks.
pub const CONTENTS: ByHash = TableDefinition::new("contents");
/// Chunk hash -> packed chunk.
pub const CHUNKS: ByHash = TableDefinition::new("chunks");
/// Chunk hash -> reference count. Apart from the chunks, so that a new version that shares a
/// chunk does not write the chunk again.
pub const CHUNK_REFERENCES: TableDefinition<'_, &[u8; 32], u64> =
    TableDefinition::new("chunk_references");
/// (State key, change that superseded them) -> versions that are no longer current.
pub const HISTORY: TableDefinition<'_, (&[u8; 32], u64), &[u8]> = TableDefinition::new("history");
/// Change feed: seq -> state key, exactly one entry a state.
pub const CHANGES: TableDefinition<'_, u64, &[u8; 32]> = TableDefinition::new("changes");
/// (Depth, leading bits) -> Merkle row.
pub const NODES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("nodes");
/// Replica id of a peer -> what we last agreed on with it.
pub const PEERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("peers");

/// Names in the meta table.
pub mod meta_names {
    /// [`crate::store::rows::Identity`].
    pub const IDENTITY: &str = "identity";
    /// [`crate::store::rows::Head`].
    pub const HEAD: &str = "head";
}
