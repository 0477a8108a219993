//! What a record from a peer means here: whether it is news, which bytes are lacking for it, and
//! which versions here are good bases for a delta.

use crate::replica::staging::{Stager, from_held};
use crate::replica::view::View;
use crate::store::body::Body;
use crate::store::error::StoreError;
use crate::store::rows::{Placed, Placement, RecordRow};
use crate::store::stage::StageKey;
use crate::sync::sides::Sides;
use crate::sync::transfer::{SMALL_STATE, TransferError, is_streamed};
use crate::types::hash::{LeafDigest, StateKey};
use crate::types::id::GameId;
use crate::types::leaf::Leaf;
use crate::types::limits::{Limits, WHOLE_STATE_MAX};
use crate::types::record::StateRecord;
use crate::types::version::Version;
use crate::wire::messages::{BASES_MAX, BaseHint, Want};

/// What the receiver knows of one wanted version.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The state.
    pub id: GameId,
    /// Its key.
    pub key: StateKey,
    /// The version.
    pub version: Version,
    /// What the sender is told.
    pub want: Want,
}

impl Wanted {
    /// True when a dictionary helps: it is short, and nothing here is like it.
    pub fn is_alone(&self) -> bool {
        self.version.size <= SMALL_STATE && self.want.bases.is_empty()
    }
}

/// A record from a peer beside what is held here of the state.
#[derive(Debug)]
pub struct Beside {
    record: StateRecord,
    key: StateKey,
    held: Option<RecordRow>,
    /// What taking the record over comes to.
    merged: Option<StateRecord>,
    /// What is left of that once we know everything that the other side knows.
    settled: Option<StateRecord>,
    now: u64,
}

/// What the other side still holds of a state that we have collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// What it is going to collect by itself.
    Departed(Leaf),
    /// What is not shown to anybody.
    Dead(Leaf),
    /// What is shown to readers.
    Shown,
}

/// A record that is news here, with what is lacking to take it over.
#[derive(Debug)]
pub struct News {
    /// The record.
    pub record: StateRecord,
    /// Versions here that have the bytes of new ones already.
    pub twins: Vec<Placed>,
    /// Bytes that the sender must send.
    pub wanted: Vec<Wanted>,
}

impl Wanted {
    /// True when the version travels chunk by chunk.
    pub fn is_streamed(&self) -> bool {
        is_streamed(&self.want, self.version.size)
    }
}

impl News {
    /// State bytes that taking the record over brings into memory.
    pub fn bytes(&self) -> u64 {
        let twins = self.twins.iter().map(|twin| twin.version.size);
        let wanted = self.wanted.iter().map(|wanted| wanted.version.size);
        twins.chain(wanted).sum()
    }

    /// True when some of it is to be brought in chunk by chunk.
    pub fn is_streamed(&self) -> bool {
        let mut wanted = self.wanted.iter();
        let mut twins = self.twins.iter();
        wanted.any(Wanted::is_streamed) || twins.any(|twin| twin.version.size > WHOLE_STATE_MAX)
    }

    /// Reads the bytes that are here already. Those that are too large for memory are referred to.
    ///
    /// # Errors
    /// [`TransferError`] when they cannot be read.
    pub fn bytes_of_twins(
        &self,
        view: &View,
        stager: &dyn Stager,
        limits: &Limits,
    ) -> Result<Vec<Body>, TransferError> {
        let mut bodies = Vec::with_capacity(self.twins.len());
        for twin in &self.twins {
            if twin.version.size > WHOLE_STATE_MAX {
                let own = view.identity().replica;
                let key = StageKey::of_transfer(&twin.version.content, own);
                bodies.push(from_held(stager, key, twin, limits)?);
            } else if let Some(bytes) = view.content(twin)? {
                bodies.push(Body::of_hashed(twin.version.content, &bytes));
            }
        }
        Ok(bodies)
    }
}

impl Beside {
    /// Looks up what is held here.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn look_up(view: &View, sides: &Sides, record: StateRecord) -> Result<Self, StoreError> {
        let key = record.key();
        let held = view.snapshot().record(&key)?;
        let merged = sides.merged(held.as_ref().map(|row| &row.record), &record);
        Ok(Self {
            settled: sides.settled(merged.as_ref(), Some(&record)),
            now: sides.now,
            record,
            key,
            held,
            merged,
        })
    }

    /// Where the state stands.
    pub fn key(&self) -> StateKey {
        self.key
    }

    /// True when taking the record over changes what is held here.
    pub fn is_news(&self) -> bool {
        self.held.as_ref().map(|row| &row.record) != self.merged.as_ref()
    }

    /// The record, when something of ours goes once we know everything that the other side knows.
    pub fn lets_go(&self) -> Option<&StateRecord> {
        (self.settled != self.merged).then_some(&self.record)
    }

    /// What the other side holds of a state of which nothing is left here; `None` for any other.
    pub fn collected(&self) -> Option<Collected> {
        if self.settled.is_some() {
            return None;
        }
        Some(if self.record.has_departed(self.now) {
            Collected::Departed(self.record.leaf())
        } else if self.record.is_dead(self.now) {
            Collected::Dead(self.record.leaf())
        } else {
            Collected::Shown
        })
    }

    /// Digest of the record, when taking it over leaves us with just what the peer holds; `None`
    /// when we then hold more.
    pub fn agreed(&self) -> Option<LeafDigest> {
        (self.settled.as_ref() == Some(&self.record)).then(|| self.record.digest())
    }

    /// What is lacking to take the record over.
    ///
    /// `previous` is the version wanted just before, which will have been decoded by the time this
    /// one is: in a series of states it makes a good base.
    ///
    /// # Errors
    /// [`TransferError`] when a version is too large or the store fails.
    pub fn lacking(
        self,
        view: &View,
        previous: Option<&Wanted>,
        state_bytes_max: u64,
    ) -> Result<News, TransferError> {
        let known = Known::of(view, &self.key, self.held.as_ref())?;
        let (mut twins, mut wanted) = (Vec::new(), Vec::new());
        for (index, version) in (0u8..=u8::MAX).zip(self.record.versions()) {
            if version.is_dead(self.now) || known.is_current(version) || !self.keeps(version) {
                continue;
            }
            if version.size > state_bytes_max {
                return Err(TransferError::TooLarge {
                    id: self.record.id.clone(),
                    size: version.size,
                    limit: state_bytes_max,
                });
            }
            if let Some(twin) = known.twin(version) {
                twins.push(twin.clone());
                continue;
            }
            wanted.push(Wanted {
                id: self.record.id.clone(),
                key: self.key,
                version: version.clone(),
                want: Want {
                    state: self.key.prefix64(),
                    version: index,
                    bases: bases(view, &self.record.id, &known, previous, version.size)?,
                },
            });
        }
        Ok(News {
            record: self.record,
            twins,
            wanted,
        })
    }

    fn keeps(&self, version: &Version) -> bool {
        let mut merged = self.merged.iter().flat_map(StateRecord::versions);
        merged.any(|kept| kept == version)
    }
}

/// The versions of a state that are held here.
struct Known {
    current: Vec<Placed>,
    history: Vec<Placed>,
}

impl Known {
    fn of(view: &View, key: &StateKey, held: Option<&RecordRow>) -> Result<Self, StoreError> {
        let placed = held.into_iter().flat_map(RecordRow::placed);
        Ok(Self {
            current: placed.map(Placed::of).collect(),
            // What is not held has none: it goes with the record.
            history: match held {
                Some(_) => view.snapshot().history(key)?,
                None => Vec::new(),
            },
        })
    }

    fn is_current(&self, version: &Version) -> bool {
        self.current.iter().any(|held| held.version == *version)
    }

    /// A version with the same bytes.
    fn twin(&self, version: &Version) -> Option<&Placed> {
        let mut all = self.current.iter().chain(&self.history);
        all.find(|held| held.version.content == version.content && has_bytes(held))
    }
}

fn has_bytes(held: &Placed) -> bool {
    held.placement != Placement::Nothing
}

/// Versions here that are likely to resemble a wanted one: those of the state itself, or the state
/// before it in its folder.
fn bases(
    view: &View,
    id: &GameId,
    known: &Known,
    previous: Option<&Wanted>,
    size: u64,
) -> Result<Vec<BaseHint>, StoreError> {
    let hint = |held: &Placed| BaseHint {
        state: None,
        content: held.version.content.prefix64(),
    };
    let with_bytes = |held: &&Placed| has_bytes(held);
    // What is current here is what the sender is likely to remember; older versions are not.
    let here = known.current.iter().filter(with_bytes).take(BASES_MAX);
    let mut hints: Vec<BaseHint> = here.map(hint).collect();
    if hints.is_empty() {
        hints.extend(known.history.iter().find(with_bytes).map(hint));
    }
    if hints.is_empty() && size > SMALL_STATE {
        hints.extend(neighbour(view, id, previous)?);
    }
    Ok(hints)
}

fn neighbour(
    view: &View,
    id: &GameId,
    previous: Option<&Wanted>,
) -> Result<Option<BaseHint>, StoreError> {
    let here = match view.snapshot().neighbour(id)? {
        Some(key) => view.snapshot().record(&key)?,
        None => None,
    };
    let coming = previous.filter(|wanted| wanted.id.folder() == id.folder() && wanted.id < *id);
    let nearer = |wanted: &&Wanted| here.as_ref().is_none_or(|row| wanted.id > row.record.id);
    if let Some(wanted) = coming.filter(nearer) {
        return Ok(Some(BaseHint {
            state: Some(wanted.key.prefix64()),
            content: wanted.version.content.prefix64(),
        }));
    }
    Ok(here.filter(RecordRow::is_live).map(|row| BaseHint {
        state: Some(row.leaf.key.prefix64()),
        content: row.record.shown().content.prefix64(),
    }))
}
