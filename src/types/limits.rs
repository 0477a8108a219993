//! Bounds that several layers share. What bounds one format alone stands where that format is read.

/// Largest state that a replica takes unless configured otherwise: 64 MiB.
pub const STATE_BYTES_DEFAULT: u64 = 64 << 20;

/// States above this size are never in memory as a whole: 64 MiB.
pub const WHOLE_STATE_MAX: u64 = 64 << 20;

/// States above this size are stored chunk by chunk while they come: 4 MiB.
pub const STAGED_FROM: u64 = 4 << 20;

/// What one replica accepts. All sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest state.
    pub state_bytes: u64,
    /// Largest message of the replication protocol without state bytes.
    pub message_bytes: u64,
    /// States that one session may find different before it falls back to copying in key order.
    pub session_states: usize,
    /// State bytes, as they travel, that one transfer message carries before it is closed.
    pub transfer_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            state_bytes: STATE_BYTES_DEFAULT,
            message_bytes: 16 << 20,
            session_states: 100_000,
            transfer_bytes: 4 << 20,
        }
    }
}
