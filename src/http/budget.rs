//! A bound on the bytes that all requests together hold in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::problem::Problem;

/// One permit stands for this many bytes: a request for permits names their number in 32 bits.
const UNIT: u64 = 1024;
/// Bodies up to this size have a part of the budget to themselves, so that large ones, which may
/// take minutes over a slow link, do not keep them waiting.
const SMALL_BYTES: u64 = 1 << 20;
/// That part is one in this many.
const SMALL_SHARE: u32 = 4;

/// Bytes that may be held at once. Requests that find none left wait in order of arrival.
#[derive(Debug, Clone)]
pub struct Budget {
    small: Part,
    large: Part,
    patience: Duration,
}

#[derive(Debug, Clone)]
struct Part {
    permits: Arc<Semaphore>,
    total: u32,
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
        let small = total / SMALL_SHARE;
        Self {
            small: Part::new(small),
            large: Part::new(total - small),
            patience,
        }
    }

    /// Waits for a share. What exceeds the part for large bodies counts as all of that part.
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
        let part = self.part(bytes);
        let permits = Arc::clone(&part.permits);
        let permit = permits.try_acquire_many_owned(part.units(bytes)).ok()?;
        Some(Reservation {
            budget: self.clone(),
            permit: Some(permit),
        })
    }

    fn part(&self, bytes: u64) -> &Part {
        let small = SMALL_BYTES.min(u64::from(self.small.total) * UNIT);
        if bytes <= small {
            &self.small
        } else {
            &self.large
        }
    }
}

impl Part {
    fn new(total: u32) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(total as usize)),
            total,
        }
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
        if self.covers(bytes) {
            return Ok(());
        }
        let part = self.budget.part(bytes);
        let permits = Arc::clone(&part.permits);
        // A share that outgrows the part for small bodies is had anew from the other one.
        let kept = self.permit.as_mut();
        let kept = kept.filter(|permit| Arc::ptr_eq(permit.semaphore(), &permits));
        let held = kept.as_ref().map_or(0, |permit| count(permit));
        let lacking = part.units(bytes).saturating_sub(held);
        let more = timeout(self.budget.patience, permits.acquire_many_owned(lacking)).await;
        let Ok(Ok(more)) = more else {
            return Err(Problem::overloaded());
        };
        match kept {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// True when the share is large enough for `bytes`.
    pub fn covers(&self, bytes: u64) -> bool {
        self.permit.as_ref().map_or(0, count) >= self.budget.part(bytes).units(bytes)
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            let needed = (bytes as u64).div_ceil(UNIT) as usize;
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
    }

    /// Ties the share to the bytes it stands for: what exceeds them is given back now, the rest
    /// when the last of them goes.
    pub fn hold(mut self, bytes: Vec<u8>) -> Bytes {
        self.shrink(bytes.len());
        Bytes::from_owner(Held {
            bytes,
            _reservation: self,
        })
    }
}

fn count(permit: &OwnedSemaphorePermit) -> u32 {
    u32::try_from(permit.num_permits()).unwrap_or(u32::MAX)
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
