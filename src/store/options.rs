//! How a namespace keeps its data.

use std::time::Duration;

/// How a namespace keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
    /// Contents up to this many bytes, packed, live in their record's row.
    pub inline_bytes: usize,
    /// Files of shards that a checkpoint writes at the same time.
    pub flush_threads: usize,
    /// Bytes of the disk that are left free: with less, only deletions are taken.
    pub reserve_bytes: u64,
    /// Compact the file by itself after much was written and nothing is for a while.
    pub compact_when_idle: bool,
    /// Superseding changes a state remembers; older ones are forgotten.
    pub history_versions: usize,
    /// How long a state remembers what was superseded, in milliseconds; `None` for ever.
    pub history_age: Option<u64>,
    /// State bytes of superseded versions that a state remembers; `None` for any number.
    pub history_bytes: Option<u64>,
    /// Least time between two entries of the log of roots; `None` for no more entries.
    pub root_log_interval: Option<Duration>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 96 << 20,
            inline_bytes: 2048,
            flush_threads: std::thread::available_parallelism().map_or(1, usize::from),
            reserve_bytes: 128 << 20,
            compact_when_idle: true,
            history_versions: 8,
            history_age: None,
            history_bytes: None,
            root_log_interval: Some(Duration::from_secs(1)),
        }
    }
}
