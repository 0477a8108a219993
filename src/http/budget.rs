//! A bound on the bytes that all requests together hold in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::problem::Problem;

/// One permit stands for this many bytes, since a semaphore counts at most 2^29 permits a request.
const UNIT: u64 = 1024;

/// Bytes that may be held at once. Requests that find none left wait in order of arrival.
#[derive(Debug, Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
    patience: Duration,
}

/// A share of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget of `bytes`; requests wait up to `patience` for a share.
    pub fn new(bytes: u64, patience: Duration) -> Self {
        let total = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        Self {
            permits: Arc::new(Semaphore::new(total as usize)),
            total,
            patience,
        }
    }

    /// Waits for a share. What exceeds the whole budget counts as the whole budget.
    ///
    /// # Errors
    /// [`Problem`] `overloaded` when there was none in time.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, Problem> {
        let mut reservation = Reservation {
            budget: self.clone(),
            permit: None,
        };
        reservation.cover(bytes).await?;
        Ok(reservation)
    }

    /// A share if there is one right now.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let permits = Arc::clone(&self.permits);
        let permit = permits.try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(Reservation {
            budget: self.clone(),
            permit: Some(permit),
        })
    }

    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).map_or(self.total, |units| units.min(self.total))
    }
}

impl Reservation {
    /// Grows the share to at least `bytes`.
    ///
    /// # Errors
    /// [`Problem`] `overloaded` when there was not enough in time.
    pub async fn cover(&mut self, bytes: u64) -> Result<(), Problem> {
        let lacking = self.budget.units(bytes).saturating_sub(self.held());
        if lacking == 0 {
            return Ok(());
        }
        let permits = Arc::clone(&self.budget.permits);
        let more = timeout(self.budget.patience, permits.acquire_many_owned(lacking)).await;
        let Ok(Ok(more)) = more else {
            return Err(Problem::overloaded());
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// True when the share is large enough for `bytes`.
    pub fn covers(&self, bytes: u64) -> bool {
        self.held() >= self.budget.units(bytes)
    }

    /// Ties the share to the bytes it stands for: it is given back when the last of them goes.
    pub fn hold(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Held {
            bytes,
            _reservation: self,
        })
    }

    fn held(&self) -> u32 {
        let held = self.permit.as_ref().map(OwnedSemaphorePermit::num_permits);
        held.map_or(0, |held| u32::try_from(held).unwrap_or(u32::MAX))
    }
}

struct Held {
    bytes: Vec<u8>,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
