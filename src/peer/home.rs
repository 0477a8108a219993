//! The local side of a session: an open namespace of this replica.

use std::sync::Arc;

use crate::replica::command::{Command, Meeting};
use crate::replica::renew::Evidence;
use crate::replica::staging::{Stager, StagingError};
use crate::replica::view::View;
use crate::runtime::handle::Queued;
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::orders::Order;
use crate::runtime::queue::SubmitError;
use crate::runtime::replica::Replica;
use crate::store::error::StoreError;
use crate::store::rows::Agreement;
use crate::sync::dictionaries::Dictionaries;
use crate::sync::report::Report;
use crate::sync::transport::{Home, MergeError, Merging};
use crate::types::id::ReplicaId;
use crate::types::lineage::{Lineage, Sighting};
use crate::types::seen::Seen;

/// A namespace of this replica, for sessions.
pub struct LocalHome {
    replica: Arc<Replica>,
    namespace: Arc<OpenNamespace>,
}

impl LocalHome {
    /// Lets sessions work on `namespace`.
    pub fn new(replica: Arc<Replica>, namespace: Arc<OpenNamespace>) -> Self {
        Self { replica, namespace }
    }
}

fn unavailable(error: SubmitError) -> MergeError {
    match error {
        SubmitError::Storage(error) => MergeError::Store(error),
        other => MergeError::Unavailable(other.to_string()),
    }
}

impl Stager for LocalHome {
    fn newest(&self) -> Arc<View> {
        self.namespace.view()
    }

    fn millis(&self) -> u64 {
        self.namespace.now()
    }

    fn carry_out(&self, command: Command) -> Result<(), StagingError> {
        self.namespace.carry_out(command)
    }
}

impl Home for LocalHome {
    fn replica(&self) -> ReplicaId {
        self.replica.id()
    }

    fn view(&self) -> Arc<View> {
        self.namespace.view()
    }

    fn now(&self) -> u64 {
        self.namespace.now()
    }

    fn merge(&self, meeting: Meeting) -> Merging {
        if !meeting.absent.is_empty() {
            let namespace = Arc::clone(&self.namespace);
            return Box::new(move || namespace.meet_blocking(meeting).map_err(unavailable));
        }
        let queued = self.namespace.queue_blocking(Command::Meet(meeting));
        Box::new(move || {
            let committed = queued.and_then(Queued::wait);
            let committed = committed.map_err(unavailable);
            Ok(committed?.accepted.refused)
        })
    }

    fn note_seen(&self, seen: &Seen, at_once: bool) {
        self.namespace.learn(seen);
        if at_once {
            // When it cannot be kept, nothing is let go of either.
            let kept = self.namespace.keep_learned();
            let _ = kept.map(|queued| queued.map(Queued::wait));
        }
    }

    fn agreement(&self, peer: ReplicaId) -> Result<Option<Agreement>, StoreError> {
        self.namespace.agreement(peer)
    }

    fn agree(&self, peer: ReplicaId, agreement: Agreement) {
        self.namespace.agree(peer, agreement);
    }

    fn meet(&self, told: &Lineage, seq: u64) -> Option<Sighting> {
        self.namespace.meet(told, seq)
    }

    fn trust(&self, told: &Lineage, seq: u64) {
        self.namespace.trust(told, seq);
    }

    fn learn(&self, seen: Sighting) -> Result<bool, MergeError> {
        if !self.namespace.is_copied(&seen) {
            return Ok(false);
        }
        let order = Order::Renew(Evidence::Seen(seen));
        match self.namespace.order_blocking(order) {
            Ok(()) => Ok(true),
            Err(SubmitError::RenewedLately) => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }

    fn dictionaries(&self) -> Arc<Dictionaries> {
        Arc::clone(self.namespace.dictionaries())
    }

    fn progress(&self, report: &Report) {
        self.replica.sessions().update(report);
    }
}
