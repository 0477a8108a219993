//! How much work a responder does for one question.

/// Bounds of one answer. A question that claims more is refused or answered in part, and the
/// initiator asks again for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tree nodes whose hashes are told; at least 256, the most that one subtree can be asked for.
    pub nodes: usize,
    /// Leaves that are read.
    pub leaves: usize,
    /// Bytes of the question and of the answer.
    pub message_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            nodes: 1 << 18,
            leaves: 1 << 20,
            message_bytes: 16 << 20,
        }
    }
}
