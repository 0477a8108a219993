//! What must hold for a write or a merge to happen.

use crate::replica::command::{Change, Incoming, Precondition, Refusal, Write};
use crate::types::id::GameId;
use crate::types::record::{StateRecord, etag};
use crate::types::version::Version;

/// Why a write may not happen to the state as it is shown.
pub fn check(write: &Write, shown: Option<&StateRecord>) -> Option<Refusal> {
    // Hashing the record is left to those who ask for its tag.
    let tag = || shown.map(|record| etag(&record.digest()));
    let holds = match &write.precondition {
        Precondition::None => true,
        Precondition::Exists => shown.is_some(),
        Precondition::Matches(tags) => tag().is_some_and(|tag| tags.contains(&tag)),
        Precondition::Absent => shown.is_none(),
    };
    if !holds {
        return Some(Refusal::PreconditionFailed {
            id: write.id.clone(),
            current: tag(),
        });
    }
    let deletes_nothing = matches!(write.change, Change::Delete) && shown.is_none();
    deletes_nothing.then(|| Refusal::NotFound {
        id: write.id.clone(),
    })
}

/// A version of `merged` that nobody has the bytes of, although it has not expired.
pub fn missing(
    merged: &StateRecord,
    held: &[Version],
    incoming: &Incoming,
    now: u64,
) -> Option<Refusal> {
    let id: &GameId = &merged.id;
    if merged.check().is_err() {
        return Some(Refusal::TooManyVersions { id: id.clone() });
    }
    let sent = |version: &Version| {
        let mut bodies = incoming.bodies.iter();
        bodies.any(|body| body.hash == version.content && body.size == version.size)
    };
    let mut versions = merged.versions().iter();
    let lacking = versions.find(|v| !v.is_dead(now) && !held.contains(v) && !sent(v))?;
    Some(Refusal::MissingBody {
        id: id.clone(),
        hash: lacking.content,
    })
}
