//! Checking what is on its way in: the list of every stage against what the stage says of itself.

use std::collections::HashMap;

use crate::replica::findings::CheckReport;
use crate::store::error::StoreError;
use crate::store::read::Snapshot;
use crate::store::stage::{Stage, StageKey};
use crate::types::hash::{ChunkHash, hex};

/// Checks all stages, and counts the chunks that they refer to.
///
/// # Errors
/// [`StoreError`] when they cannot be read to the end.
pub fn check_stages(
    snapshot: &Snapshot,
    report: &mut CheckReport,
    references: &mut HashMap<ChunkHash, u64>,
) -> Result<(), StoreError> {
    for (key, stage) in snapshot.stages()? {
        let counted = stage.and_then(|stage| {
            let counted = count(snapshot, key, &stage, references)?;
            Ok((stage, counted))
        });
        let what = hex(&key.0);
        match counted {
            Ok((stage, counted)) if counted != (stage.chunks, stage.bytes) => {
                let (said, there) = ((stage.chunks, stage.bytes), counted);
                let detail = format!("says (chunks, bytes) {said:?}, there are {there:?}");
                report.fault("stage", &what, &detail);
            }
            Ok(_) => {}
            Err(error @ StoreError::Damaged(_)) => report.fault("stage", &what, &error.bare()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn count(
    snapshot: &Snapshot,
    key: StageKey,
    stage: &Stage,
    references: &mut HashMap<ChunkHash, u64>,
) -> Result<(u32, u64), StoreError> {
    let (mut chunks, mut bytes) = (0u32, 0u64);
    for row in 1..=stage.rows {
        for (hash, length) in snapshot.stage_row(key, row)? {
            *references.entry(hash).or_insert(0) += 1;
            chunks = chunks.saturating_add(1);
            bytes = bytes.saturating_add(u64::from(length));
        }
    }
    Ok((chunks, bytes))
}
