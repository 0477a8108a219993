//! The log of roots as rows, and what is remembered of the logs of others.

use std::ops::Bound;

use crate::roots::entry::RootEntry;
use crate::roots::head::PublicKey;
use crate::roots::mountains::{Nodes, nodes_above};
use crate::roots::witness::{ACCUSED_MAX, Accusation, WITNESSED_MAX, Witnessed};
use crate::store::error::StoreError;
use crate::store::layered::{KeyRange, Layered};
use crate::store::read::Snapshot;
use crate::store::tables::{Meta, Roots, meta_names};
use crate::store::write::Tables;
use crate::types::binary::{decode, encode};
use crate::types::hash::{LogHash, hex};

/// The rows of a log, as the mountain range reads them.
struct Rows<'r>(&'r Layered);

impl Nodes for Rows<'_> {
    type Error = StoreError;

    fn node(&self, height: u8, place: u64) -> Result<LogHash, StoreError> {
        if height == 0 {
            return entry(self.0, place)?
                .map(|entry| entry.leaf())
                .ok_or_else(|| missing(height, place));
        }
        let hash = |row: &[u8]| <[u8; 32]>::try_from(row).ok();
        let found = self.0.get::<Roots, _>(&(height, place), hash)?;
        found
            .flatten()
            .map(LogHash)
            .ok_or_else(|| missing(height, place))
    }
}

fn missing(height: u8, place: u64) -> StoreError {
    StoreError::damaged(format!(
        "node {place} at height {height} of the log of roots is not there"
    ))
}

fn size(rows: &Layered) -> Result<u64, StoreError> {
    let leaves: KeyRange<Roots> = (Bound::Included((0, 0)), Bound::Included((0, u64::MAX)));
    let last = rows.last_key::<Roots>(&leaves)?;
    Ok(last.map_or(0, |(_, place)| place.saturating_add(1)))
}

fn entry(rows: &Layered, place: u64) -> Result<Option<RootEntry>, StoreError> {
    let row = rows.get::<Roots, _>(&(0, place), RootEntry::from_bytes)?;
    row.map(|entry| entry.ok_or_else(|| missing(0, place)))
        .transpose()
}

fn under<R>(
    rows: &Layered,
    prefix: &str,
    read: impl Fn(&[u8]) -> Result<R, StoreError>,
) -> Result<Vec<R>, StoreError> {
    // Names go on with hexadecimal digits, in front of 'g'.
    let range = (
        Bound::Included(prefix.to_owned()),
        Bound::Excluded(format!("{prefix}g")),
    );
    rows.collect::<Meta, _>(range, usize::MAX, |_, row| read(row))
}

fn name(prefix: &str, key: &PublicKey) -> String {
    format!("{prefix}{}", hex(&key.0))
}

impl Snapshot {
    /// Entries in the log of roots.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn root_log_size(&self) -> Result<u64, StoreError> {
        size(self.rows())
    }

    /// An entry of the log of roots, counted from 0.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn root_entry(&self, place: u64) -> Result<Option<RootEntry>, StoreError> {
        entry(self.rows(), place)
    }

    /// At most `limit` entries of the log of roots, from `first` on, with their places.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn root_entries(
        &self,
        first: u64,
        limit: usize,
    ) -> Result<Vec<(u64, RootEntry)>, StoreError> {
        let range = (Bound::Included((0, first)), Bound::Included((0, u64::MAX)));
        self.rows()
            .collect::<Roots, _>(range, limit, |(_, place), row| {
                let entry = RootEntry::from_bytes(row).ok_or_else(|| missing(0, place))?;
                Ok((place, entry))
            })
    }

    /// What is remembered of the logs of others.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn witnessed(&self) -> Result<Vec<Witnessed>, StoreError> {
        under(self.rows(), meta_names::WITNESSED, |row| Ok(decode(row)?))
    }

    /// What is remembered of the log of one key.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn witnessed_of(&self, key: &PublicKey) -> Result<Option<Witnessed>, StoreError> {
        let name = name(meta_names::WITNESSED, key);
        let found = self.rows().get::<Meta, _>(&name, decode)?;
        Ok(found.transpose()?)
    }

    /// What is held against others.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn accusations(&self) -> Result<Vec<Accusation>, StoreError> {
        under(self.rows(), meta_names::ACCUSED, |row| Ok(decode(row)?))
    }
}

impl Nodes for Snapshot {
    type Error = StoreError;

    fn node(&self, height: u8, place: u64) -> Result<LogHash, StoreError> {
        Rows(self.rows()).node(height, place)
    }
}

impl Tables<'_> {
    /// Appends to the log of roots.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn append_root(&mut self, entry: &RootEntry) -> Result<(), StoreError> {
        let size = size(self.rows())?;
        let above = nodes_above(&Rows(self.rows()), size, entry.leaf())?;
        self.set::<Roots>((0, size), entry.to_bytes().as_slice().into());
        for node in above {
            self.set::<Roots>((node.height, node.place), node.hash.0.as_slice().into());
        }
        Ok(())
    }

    /// Remembers a head of another replica's log in place of the one before.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn set_witnessed(&mut self, witnessed: &Witnessed) -> Result<(), StoreError> {
        let prefix = meta_names::WITNESSED;
        let others = under(self.rows(), prefix, |row| Ok(decode::<Witnessed>(row)?))?;
        let key = witnessed.head.key;
        let others: Vec<Witnessed> = others.into_iter().filter(|w| w.head.key != key).collect();
        let oldest = others.iter().min_by_key(|witnessed| witnessed.heard_at);
        if let Some(oldest) = oldest.filter(|_| others.len() >= WITNESSED_MAX) {
            self.remove::<Meta>(name(prefix, &oldest.head.key));
        }
        self.set::<Meta>(name(prefix, &key), encode(witnessed).into());
        Ok(())
    }

    /// Keeps evidence against a replica's key, unless there is some of its kind already.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn accuse(&mut self, accusation: &Accusation) -> Result<(), StoreError> {
        let prefix = meta_names::ACCUSED;
        let known = under(self.rows(), prefix, |row| Ok(decode::<Accusation>(row)?))?;
        let of = |held: &Accusation| (held.first.key, held.fault);
        let is_known = known.iter().any(|known| of(known) == of(accusation));
        if known.len() < ACCUSED_MAX && !is_known {
            let name = name(prefix, &accusation.first.key);
            let name = format!("{name}/{}", accusation.fault.name());
            self.set::<Meta>(name, encode(accusation).into());
        }
        Ok(())
    }
}
