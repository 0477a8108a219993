//! What both sides of a session have taken in, and what follows from it for states that they hold
//! differently: which one is behind, and which one has collected a state that is over.

use std::sync::Arc;

use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::Agreement;
use crate::sync::exchange::SessionError;
use crate::types::record::{StateRecord, meet};
use crate::types::seen::Seen;
use crate::wire::messages::OpenReply;

/// What both sides have taken in, and what time it is.
#[derive(Debug, Clone, Default)]
pub struct Sides {
    /// What was taken in here when the session was opened.
    pub ours: Seen,
    /// What the other side had taken in.
    pub theirs: Arc<Seen>,
    /// Both together.
    both: Seen,
    /// What the clock on the wall says here, in milliseconds since 1970-01-01 UTC.
    pub now: u64,
}

/// What is to be done about a state that only we hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnlyOurs {
    /// The other side lacks something of it.
    Ahead,
    /// The other side has collected a part of it, and lacks another one.
    PartlyCollected,
    /// The other side has collected it.
    Collected,
    /// It has departed: it leaves the tree here, and is not wanted there.
    Departed,
}

impl Sides {
    /// Puts together what both sides say.
    pub fn new(ours: Seen, theirs: Arc<Seen>, now: u64) -> Self {
        let mut both = ours.clone();
        both.join(&theirs);
        Self {
            ours,
            theirs,
            both,
            now,
        }
    }

    /// The sides of a session that we have opened on `view`. A peer whose word cannot be true, or
    /// whose feed has gone back, has been put back to an earlier state or is a copy of another one:
    /// nothing is let go because of it.
    ///
    /// # Errors
    /// [`SessionError`] when the peer's word was changed on the way; when the store fails.
    pub fn of_session(
        view: &View,
        newest: &View,
        peer: &OpenReply,
        agreement: Option<&Agreement>,
        now: u64,
    ) -> Result<Self, SessionError> {
        let theirs = peer.testimony.read(&peer.root.hash);
        let theirs = theirs.ok_or(SessionError::Misfit("a testimony that was changed"))?;
        let went_back = agreement.is_some_and(|agreement| {
            agreement.their_epoch == peer.epoch
                && (agreement.their_incarnation > peer.incarnation
                    || agreement.their_seq > peer.seq)
        });
        let is_true = theirs.get(view.identity().writer()) <= newest.head().seq;
        let theirs = if is_true && !went_back {
            theirs.clone()
        } else {
            Seen::default()
        };
        Ok(Self::new(view.seen()?, Arc::new(theirs), now))
    }

    /// The sides as the responder sees them.
    ///
    /// # Errors
    /// [`StoreError`] when the view cannot be read.
    pub fn of_responder(view: &View, theirs: Arc<Seen>, now: u64) -> Result<Self, StoreError> {
        Ok(Self::new(view.seen()?, theirs, now))
    }

    /// What merging the other side's record into what is held here comes to.
    pub fn merged(&self, held: Option<&StateRecord>, record: &StateRecord) -> Option<StateRecord> {
        if held.is_none() && self.is_over_there(record) {
            return None;
        }
        meet(held, &self.ours, Some(record), &self.theirs)
    }

    /// What is left of that once we know everything that the other side knows.
    pub fn settled(
        &self,
        merged: Option<&StateRecord>,
        record: Option<&StateRecord>,
    ) -> Option<StateRecord> {
        meet(Some(merged?), &self.both, record, &self.theirs)
    }

    /// True when the other side is going to collect its record. What it keeps for lack of knowledge
    /// others have to keep, too.
    fn is_over_there(&self, record: &StateRecord) -> bool {
        record.has_departed(self.now) && record.is_covered(&self.theirs)
    }

    /// What is to be done about a record of ours that the other side does not hold.
    pub fn only_ours(&self, record: &StateRecord) -> OnlyOurs {
        match self.settled(Some(record), None) {
            None => OnlyOurs::Collected,
            Some(rest) if rest != *record => OnlyOurs::PartlyCollected,
            Some(_) if record.has_departed(self.now) && record.is_covered(&self.ours) => {
                OnlyOurs::Departed
            }
            Some(_) => OnlyOurs::Ahead,
        }
    }
}
