//! What is remembered of each of many, as long as somebody uses it, and of a bounded number of others.

use std::collections::HashMap;
use std::hash::Hash;

/// Entries that are remembered though nobody uses them.
const IDLE_MAX: usize = 1024;

/// A map that forgets what is idle when it has grown too much.
pub struct Remembered<K, V> {
    entries: HashMap<K, V>,
    /// How many there are when idle ones are looked for the next time: so rarely that an entry costs
    /// the same however many are in use.
    look_at: usize,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            look_at: IDLE_MAX,
        }
    }
}

impl<K: Clone + Eq + Hash, V: Default> Remembered<K, V> {
    /// The entry of a key, which is made when there is none; before that those that are idle are
    /// forgotten, if there are too many.
    pub fn of(&mut self, key: &K, is_idle: impl Fn(&V) -> bool) -> &mut V {
        if self.entries.len() >= self.look_at && !self.entries.contains_key(key) {
            self.entries.retain(|_, value| !is_idle(value));
            self.look_at = self.entries.len() * 2 + IDLE_MAX;
        }
        self.entries.entry(key.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_used_stays_and_looking_for_idle_entries_costs_little() {
        let looked = Cell::new(0);
        let mut remembered: Remembered<u32, u32> = Remembered::default();
        let is_idle = |value: &u32| {
            looked.set(looked.get() + 1);
            *value == 0
        };
        let used = 10 * IDLE_MAX as u32;
        for key in 1..=used {
            *remembered.of(&key, is_idle) = key;
        }
        assert!(looked.get() < 2 * used, "{} entries", looked.get());
        for idle in 0..100 * IDLE_MAX as u32 {
            remembered.of(&(used + 1 + idle), is_idle);
        }
        assert!(remembered.entries.len() < 3 * used as usize);
        assert!((1..=used).all(|key| *remembered.of(&key, is_idle) == key));
    }
}
