//! Heads of logs of roots as peers have seen them of each other.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::roots::head::{PublicKey, SignedHead};
use crate::runtime::lock::lock;
use crate::types::id::Namespace;

/// Heads of one key, heard of from others, that wait for their proof.
const HEARD_MAX: usize = 4;
/// Keys of which heads may wait.
const HEARD_KEYS_MAX: usize = 256;

/// Heads of keys that were met, as others have seen them, until their owner proves that they are
/// of its log.
#[derive(Debug, Default)]
pub struct Heard(Mutex<HashMap<(Namespace, PublicKey), Vec<SignedHead>>>);

impl Heard {
    /// The heads of a key that wait.
    pub fn of(&self, namespace: &Namespace, key: &PublicKey) -> Vec<SignedHead> {
        let heard = lock(&self.0);
        heard
            .get(&(namespace.clone(), *key))
            .cloned()
            .unwrap_or_default()
    }

    /// Lets a head wait, if there is room.
    pub fn add(&self, namespace: &Namespace, head: SignedHead) {
        let mut heard = lock(&self.0);
        let place = (namespace.clone(), head.key);
        if heard.len() >= HEARD_KEYS_MAX && !heard.contains_key(&place) {
            return;
        }
        let waiting = heard.entry(place).or_default();
        if waiting.len() < HEARD_MAX && !waiting.contains(&head) {
            waiting.push(head);
        }
    }

    /// Forgets heads of one key, which need not wait any more.
    pub fn settle(&self, namespace: &Namespace, settled: &[SignedHead]) {
        let Some(first) = settled.first() else {
            return;
        };
        let place = (namespace.clone(), first.key);
        let mut heard = lock(&self.0);
        if let Some(waiting) = heard.get_mut(&place) {
            waiting.retain(|head| !settled.contains(head));
            if waiting.is_empty() {
                heard.remove(&place);
            }
        }
    }
}
