//! The log of roots as rows, and what is remembered of the logs of others.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::roots::entry::RootEntry;
use crate::roots::head::PublicKey;
use crate::roots::mountains::{Nodes, nodes_above, root};
use crate::roots::witness::{
    ACCUSED_MAX, Accusation, KEYS_PER_REPLICA_MAX, WITNESSED_MAX, Witnessed,
};
use crate::store::error::StoreError;
use crate::store::layered::{KeyRange, Layered};
use crate::store::read::Snapshot;
use crate::store::rows::Identity;
use crate::store::tables::{Meta, Roots, meta_names};
use crate::store::write::Tables;
use crate::types::binary::{decode, encode};
use crate::types::hash::{LogHash, hex};

/// What the log of roots is, told beside its rows, so that one that lost its end is not taken for a
/// shorter one: a head of that would contradict what was signed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootLogMark {
    /// Entries.
    pub size: u64,
    /// The hash over them.
    pub hash: LogHash,
    /// True once states were removed since the newest entry, which changes the root without taking a
    /// position of the feed.
    pub is_past: bool,
}

/// What a row about another replica's log says.
#[derive(Debug, Clone)]
pub enum Told {
    /// A head that was seen.
    Witnessed(Box<Witnessed>),
    /// Evidence.
    Accused(Box<Accusation>),
}

/// Height and place of a row of the log of roots, and its bytes.
pub type RootRow = ((u8, u64), Vec<u8>);

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

fn mark(rows: &Layered) -> Result<Option<RootLogMark>, StoreError> {
    let found = rows.get::<Meta, _>(&meta_names::ROOTS.to_owned(), decode)?;
    Ok(found.transpose()?)
}

fn name(prefix: &str, key: &PublicKey) -> String {
    format!("{prefix}{}", hex(&key.0))
}

impl Snapshot {
    /// What the file is, if it says so in a way that can be read.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn identity(&self) -> Result<Option<Identity>, StoreError> {
        let identity = |row: &[u8]| decode(row).ok();
        let found = self
            .rows()
            .get::<Meta, _>(&meta_names::IDENTITY.to_owned(), identity)?;
        Ok(found.flatten())
    }

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

    /// What is told of the log of roots beside its rows; `None` before the first entry.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn root_log_mark(&self) -> Result<Option<RootLogMark>, StoreError> {
        mark(self.rows())
    }

    /// At most `limit` rows of the log of roots as they are, from one place up to and including
    /// another one.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn root_rows(
        &self,
        from: (u8, u64),
        to: (u8, u64),
        limit: usize,
    ) -> Result<Vec<RootRow>, StoreError> {
        let range = (Bound::Included(from), Bound::Included(to));
        let row = |at, row: &[u8]| Ok((at, row.to_vec()));
        self.rows().collect::<Roots, _>(range, limit, row)
    }

    /// A row of the log of roots as it is.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn root_row(&self, height: u8, place: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows()
            .get::<Roots, _>(&(height, place), <[u8]>::to_vec)
    }

    /// Compares the length of the log of roots with what is told beside it. Cheap, whatever that is.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they differ.
    pub fn check_root_log_size(&self) -> Result<(), StoreError> {
        let (told, size) = (self.root_log_mark()?, self.root_log_size()?);
        let told = told.map_or(0, |mark| mark.size);
        if told == size {
            return Ok(());
        }
        Err(StoreError::damaged(format!(
            "the log of roots has {size} entries where there were {told}"
        )))
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

impl Snapshot {
    /// Every row about logs of others with its name; `None` for one that is damaged.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn told_of_logs(&self) -> Result<Vec<(String, Option<Told>)>, StoreError> {
        let mut told = Vec::new();
        for prefix in [meta_names::WITNESSED, meta_names::ACCUSED] {
            let range = (
                Bound::Included(prefix.to_owned()),
                Bound::Excluded(format!("{prefix}g")),
            );
            let read = |name: &str, row: &[u8]| {
                let told = if prefix == meta_names::WITNESSED {
                    decode(row).map(|seen| Told::Witnessed(Box::new(seen)))
                } else {
                    decode(row).map(|held| Told::Accused(Box::new(held)))
                };
                Ok((name.to_owned(), told.ok()))
            };
            told.extend(self.rows().collect::<Meta, _>(range, usize::MAX, read)?);
        }
        Ok(told)
    }
}

impl Told {
    /// The name that its row has.
    pub fn name(&self) -> String {
        match self {
            Self::Witnessed(witnessed) => name(meta_names::WITNESSED, &witnessed.head.key),
            Self::Accused(held) => accused_name(held),
        }
    }
}

fn accused_name(held: &Accusation) -> String {
    let name = name(meta_names::ACCUSED, &held.first.key);
    format!("{name}/{}", held.fault.name())
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
        let size = size + 1;
        let hash = root(&Rows(self.rows()), size)?;
        self.set_mark(&RootLogMark {
            size,
            hash: hash.ok_or_else(|| missing(0, 0))?,
            is_past: false,
        });
        Ok(())
    }

    /// Takes note that states were removed since the newest entry of the log of roots.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or the row is damaged.
    pub fn leave_root_behind(&mut self) -> Result<(), StoreError> {
        if let Some(mark) = mark(self.rows())?.filter(|mark| !mark.is_past) {
            let is_past = true;
            self.set_mark(&RootLogMark { is_past, ..mark });
        }
        Ok(())
    }

    fn set_mark(&mut self, mark: &RootLogMark) {
        self.set::<Meta>(meta_names::ROOTS.to_owned(), encode(mark).into());
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
        // A replica that takes one key after the other must not make others be forgotten.
        let replica = witnessed.head.head.replica;
        let of_replica = |other: &&Witnessed| other.head.head.replica == replica;
        let is_crowding = others.iter().filter(of_replica).count() >= KEYS_PER_REPLICA_MAX;
        let is_full = others.len() >= WITNESSED_MAX;
        let may_go = |other: &&Witnessed| {
            if is_crowding {
                of_replica(other)
            } else {
                is_full
            }
        };
        let candidates = others.iter().filter(may_go);
        if let Some(oldest) = candidates.min_by_key(|witnessed| witnessed.heard_at) {
            self.remove::<Meta>(name(prefix, &oldest.head.key));
        }
        self.set::<Meta>(name(prefix, &key), encode(witnessed).into());
        Ok(())
    }

    /// Keeps evidence against a replica's key, unless there is some of its kind already. Of what an
    /// honest replica may do as well the newest is kept.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails or a row is damaged.
    pub fn accuse(&mut self, accusation: &Accusation) -> Result<(), StoreError> {
        let prefix = meta_names::ACCUSED;
        let known = under(self.rows(), prefix, |row| Ok(decode::<Accusation>(row)?))?;
        let of = |held: &Accusation| (held.first.key, held.fault);
        let is_known = known.iter().any(|known| of(known) == of(accusation));
        let takes = if is_known {
            !accusation.fault.is_proof()
        } else {
            known.len() < ACCUSED_MAX
        };
        if takes {
            self.set::<Meta>(accused_name(accusation), encode(accusation).into());
        }
        Ok(())
    }
}
