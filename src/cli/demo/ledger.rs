//! What was written and acknowledged, to hold the replicas to it.

use std::collections::BTreeMap;

use crate::types::hash::ContentHash;

/// The writes of one state that still matter.
#[derive(Debug, Default, Clone, Copy)]
struct Entry {
    acknowledged: Option<ContentHash>,
    /// Sent later, and not answered (yet): it may have been stored, or not.
    pending: Option<ContentHash>,
}

/// Remembers every write. Each state has one writer at a time.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<String, Entry>);

impl Ledger {
    /// A write is on its way.
    pub fn attempt(&mut self, id: &str, content: ContentHash) {
        self.0.entry(id.to_owned()).or_default().pending = Some(content);
    }

    /// The write on its way was acknowledged.
    pub fn acknowledge(&mut self, id: &str) {
        if let Some(entry) = self.0.get_mut(id) {
            entry.acknowledged = entry.pending.take().or(entry.acknowledged);
        }
    }

    /// All ids below a prefix, in order.
    pub fn ids(&self, prefix: &str) -> Vec<String> {
        let ids = self.0.keys().filter(|id| id.starts_with(prefix));
        ids.cloned().collect()
    }

    /// Whether a replica may hold this of a state: what was acknowledged, or what was sent after it.
    pub fn allows(&self, id: &str, found: Option<ContentHash>) -> bool {
        let entry = self.0.get(id).copied().unwrap_or_default();
        found == entry.acknowledged || (found.is_some() && found == entry.pending)
    }

    /// Whether what was found is exactly what was acknowledged last.
    pub fn is_acknowledged(&self, id: &str, found: ContentHash) -> bool {
        let entry = self.0.get(id);
        entry.is_some_and(|entry| entry.acknowledged == Some(found))
    }

    /// An unanswered write turned out to have been stored, or not: from here on only that counts.
    pub fn settle(&mut self, id: &str, found: Option<ContentHash>) {
        match found {
            Some(found) => {
                let settled = Entry {
                    acknowledged: Some(found),
                    pending: None,
                };
                self.0.insert(id.to_owned(), settled);
            }
            None => {
                self.0.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_writes_must_be_there_and_unanswered_ones_may() {
        let hash = |text: &str| ContentHash::of(text.as_bytes());
        let mut ledger = Ledger::default();
        assert!(ledger.allows("x", None) && !ledger.allows("x", Some(hash("1"))));

        ledger.attempt("x", hash("1"));
        assert!(ledger.allows("x", None) && ledger.allows("x", Some(hash("1"))));

        ledger.acknowledge("x");
        assert!(!ledger.allows("x", None) && ledger.allows("x", Some(hash("1"))));

        ledger.attempt("x", hash("2"));
        assert!(ledger.allows("x", Some(hash("1"))) && ledger.allows("x", Some(hash("2"))));
        assert!(!ledger.allows("x", None) && !ledger.allows("x", Some(hash("3"))));
        assert!(ledger.is_acknowledged("x", hash("1")));

        ledger.settle("x", Some(hash("2")));
        assert!(!ledger.allows("x", Some(hash("1"))) && ledger.is_acknowledged("x", hash("2")));

        ledger.attempt("y", hash("1"));
        ledger.settle("y", None);
        assert_eq!(ledger.ids(""), ["x"]);
    }
}
