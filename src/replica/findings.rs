//! What looking at a store finds: what was read, and what is not as it should be.

use std::fmt::Display;

use serde::Serialize;

use crate::types::id::Namespace;

/// Faults that are listed at most; a store with more is beyond listing.
const FAULTS_MAX: usize = 10_000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// `record`, `content`, `chunk`, `history`, `id`, `feed`, `deadline`, `node` or `head`; `roots` for
    /// the log of roots, `witness` for what is kept of those of others; `engine` for a table or the
    /// file as a whole, `log` for the write-ahead log, `file` for one that is missing, `key` for what
    /// the replica signs with; `sketch` for the sums that a running replica keeps in memory.
    pub kind: &'static str,
    /// Which one: an id, a hash, a place or a file.
    pub what: String,
    /// What is wrong with it.
    pub detail: String,
}

/// What a full check read and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// States that have something to show: not deleted, and not expired and given up.
    pub states: u64,
    /// Records, deleted ones included.
    pub records: u64,
    /// Versions whose bytes were read and hashed, superseded ones included.
    pub versions: u64,
    /// State bytes that were hashed.
    pub bytes: u64,
    /// Chunks whose reference counts were compared.
    pub chunks: u64,
    /// Merkle rows that were compared with a rebuild.
    pub nodes: u64,
    /// Entries of the log of roots.
    pub roots: u64,
    /// Heads of other replicas' logs of roots, and pieces of evidence.
    pub witnessed: u64,
    /// Root of the rebuilt tree.
    pub root: String,
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
}

/// What full checks of all namespaces found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// True when nothing is wrong anywhere.
    pub ok: bool,
    /// In order of name.
    pub namespaces: Vec<NamespaceVerified>,
}

/// What a full check of one namespace found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamespaceVerified {
    /// Which one.
    pub namespace: Namespace,
    /// What was read and found.
    #[serde(flatten)]
    pub report: CheckReport,
}

impl Verified {
    /// Nothing has been looked at, and so nothing is wrong.
    pub fn nothing() -> Self {
        Self {
            ok: true,
            namespaces: Vec::new(),
        }
    }

    /// Adds what was found in a namespace.
    pub fn add(&mut self, namespace: Namespace, report: CheckReport) {
        self.ok &= report.faults.is_empty();
        self.namespaces
            .push(NamespaceVerified { namespace, report });
    }
}

impl CheckReport {
    /// Lists a fault.
    pub fn fault(&mut self, kind: &'static str, what: &dyn Display, detail: &dyn Display) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault {
                kind,
                what: what.to_string(),
                detail: detail.to_string(),
            });
        }
    }
}
