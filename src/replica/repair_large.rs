//! Large contents in a repair: they are brought into the new file chunk by chunk, and so are stages
//! that had not become states yet.

use std::collections::HashMap;

use crate::delta::compress::pack;
use crate::replica::rebuild::Builder;
use crate::store::body::Body;
use crate::store::error::StoreError;
use crate::store::rows::Placement;
use crate::store::salvage::Remains;
use crate::store::stage::{ChunkEntry, StageKey, Staging};
use crate::types::hash::ContentHash;
use crate::types::version::Version;

/// The large contents that were saved: each once, however many versions have it.
#[derive(Debug, Default)]
pub struct LargeContents {
    saved: HashMap<ContentHash, Option<Body>>,
    /// Lists of chunks that the log has.
    logged: HashMap<ContentHash, Vec<ChunkEntry>>,
}

impl LargeContents {
    /// None yet; the log has these lists of chunks.
    pub fn new(logged: HashMap<ContentHash, Vec<ChunkEntry>>) -> Self {
        let saved = HashMap::new();
        Self { saved, logged }
    }

    /// Brings the bytes of a large version into the new file; `None` when they are lost.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn save(
        &mut self,
        remains: &Remains,
        builder: &mut Builder,
        version: &Version,
        placement: &Placement,
    ) -> Result<Option<Body>, StoreError> {
        if let Some(saved) = self.saved.get(&version.content) {
            return Ok(saved.clone());
        }
        let mut saved = None;
        let logged = self.logged.get(&version.content).cloned();
        for list in remains
            .chunk_lists(version, placement)
            .into_iter()
            .chain(logged)
        {
            let (key, read) = (key_of(&version.content), reader(remains));
            saved = builder.stage_content(key, version, &list, &read)?;
            if saved.is_some() {
                break;
            }
        }
        self.saved.insert(version.content, saved.clone());
        Ok(saved)
    }

    /// Gives up what no state took. Those that do must have been written.
    ///
    /// # Errors
    /// [`StoreError`] when the new file fails.
    pub fn finish(self, builder: &mut Builder) -> Result<(), StoreError> {
        let mut contents = self.saved.into_keys();
        contents.try_for_each(|content| builder.give_up(key_of(&content)))
    }
}

fn key_of(content: &ContentHash) -> StageKey {
    StageKey::of_healing(content, "repair")
}

fn reader(remains: &Remains) -> impl Fn(&ChunkEntry) -> Option<Vec<u8>> {
    |(hash, length)| remains.chunk(*hash, *length)
}

/// Saves the stages of the old file: a large state whose record only the log has needs the chunks that
/// came before. One that is not whole begins anew.
///
/// # Errors
/// [`StoreError`] when the new file fails.
pub fn save_stages(remains: &Remains, builder: &mut Builder) -> Result<(), StoreError> {
    let Some(snapshot) = remains.snapshot() else {
        return Ok(());
    };
    for (key, stage) in snapshot.stages().unwrap_or_default() {
        let Ok(stage) = stage else {
            continue;
        };
        if let Some(list) = listed(remains, key) {
            builder.stage(key, &stage, &list, &reader(remains))?;
        }
    }
    Ok(())
}

/// The list of chunks of a stage of the old file; `None` when it is not whole.
pub fn listed(remains: &Remains, key: StageKey) -> Option<Vec<ChunkEntry>> {
    let snapshot = remains.snapshot()?;
    let stage = snapshot.stage(key).ok()??;
    let rows = (1..=stage.rows).map(|row| snapshot.stage_row(key, row));
    let list = rows.collect::<Result<Vec<_>, _>>().ok()?.concat();
    (list.len() == stage.chunks as usize).then_some(list)
}

/// A step of a stage with the bytes of all its chunks, as far as they are anywhere: it may count on chunks of a content
/// that is lost otherwise.
pub fn with_bytes(remains: &Remains, mut staging: Staging) -> Staging {
    for chunk in staging
        .chunks
        .iter_mut()
        .filter(|chunk| chunk.packed.is_none())
    {
        let bytes = remains.chunk(chunk.hash, chunk.length);
        chunk.packed = bytes.map(|bytes| pack(&bytes).into());
    }
    staging
}
