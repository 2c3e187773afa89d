//! The writes of the record of a rollout, in one batch with the locks, the verdict and the end that belong to them.

use super::checkpoint::wait;
use super::driver::RolloutRun;
use super::read_with_retry;
use super::wait_reason::WaitReason;
use crate::domain::rollout::IllegalRollout;
use crate::domain::{Color, LockMode, ReasonCode, Rollout, Service};
use crate::engine::{Backoff, Lost, Pauses, Unwritten, is_transient, retry_write};
use crate::ports::{FeedEvent, Mutation, WriteBatch, WriteError};

impl RolloutRun<'_> {
    /// Applies an edit to the stored record, provided that this owner still owns the rollout. The same batch acquires or
    /// releases the lock that the rollout then needs; if the lock is not available, the rollout waits. A rollout that
    /// ends is removed from the record of the fleet.
    pub(super) async fn commit(
        &mut self,
        pages: Vec<Mutation>,
        edit: impl Fn(&mut Rollout) -> Result<bool, IllegalRollout>,
    ) -> Result<(), Lost> {
        let ports = self.worker.ports();
        let mine = (self.rollout.owner.clone(), self.rollout.term);
        let mut fresh = self.rollout.clone();
        let backoff = Backoff::of(self.worker.settings());
        loop {
            let mut next = fresh.clone();
            if !self.checked(edit(&mut next))? {
                return Err(Lost);
            }
            let rejects = next.image_rejected && !fresh.image_rejected;
            let mut writes = self.services(&mut next, rejects).await?;
            writes.insert(0, Mutation::Rollout(Box::new(next.clone())));
            writes.extend(pages.iter().cloned());
            let mut events = self.events(&fresh, &next);
            events.extend(self.pending_events.iter().cloned());
            let batch = WriteBatch { writes, events, ..WriteBatch::default() };
            let pauses = Pauses { clock: &*ports.clock, backoff, stopping: None, tries: None };
            let written = retry_write(
                pauses,
                || self.call(),
                is_transient,
                |call| {
                    let batch = &batch;
                    async move { ports.store.write(&call, batch).await }
                },
            )
            .await?;
            match written {
                Ok(()) => {
                    next.version += 1;
                    self.pending_events.clear();
                    self.rollout = next;
                    return Ok(());
                }
                Err(Unwritten { error: WriteError::Store(_), .. }) => return Err(Lost),
                Err(_) => {}
            }
            fresh = read_with_retry(self.worker, || ports.store.rollout(self.rollout.number))
                .await?
                .ok_or(Lost)?;
            if (fresh.owner.clone(), fresh.term) != mine {
                return Err(Lost);
            }
        }
    }

    /// Returns the writes of other records: locks, the verdict, and the end in the record of the fleet.
    async fn services(&self, next: &mut Rollout, rejects: bool) -> Result<Vec<Mutation>, Lost> {
        let ports = self.worker.ports();
        let mut writes = Vec::new();
        let (wanted, held) = (next.lock(), next.locked_color);
        for color in Color::ALL {
            let takes = wanted == Some(color);
            let (stays, rejects) = ((held == Some(color)) == takes, rejects && color == next.target);
            if stays && !rejects {
                continue;
            }
            let mut service = self.service(color).await?;
            if rejects {
                self.reject_image(next, &mut service).await?;
            }
            if stays {
                // The lock does not change; only the verdict is written.
            } else if !takes {
                service.lock.release(next.number);
                next.locked_color = next.locked_color.filter(|held| *held != color);
            } else if service.lock.acquire(next.number, LockMode::Shared) {
                next.locked_color = Some(color);
            } else {
                let (now, again) = (self.now(), self.worker.settings().scan);
                next.needs_recovery = self.rollout.needs_recovery;
                let why = WaitReason {
                    code: ReasonCode::ServiceLocked,
                    message: format!("a deploy holds the lock on `{color}`"),
                };
                self.checked(wait(next, why, now, again, None))?;
                continue;
            }
            writes.push(Mutation::Service(Box::new(service)));
        }
        if next.status.ended() && next.kind.moves() {
            let fleet = read_with_retry(self.worker, || ports.store.fleet()).await?;
            if fleet.rollout == Some(next.number) {
                writes.push(Mutation::Fleet(Box::new(crate::domain::Fleet { rollout: None, ..fleet })));
            }
        }
        Ok(writes)
    }

    /// Reports an illegal transition, which is a bug. Nothing is stored then.
    fn checked<T>(&self, transition: Result<T, IllegalRollout>) -> Result<T, Lost> {
        transition.map_err(|illegal| {
            self.worker.illegal(&illegal);
            Lost
        })
    }

    pub(super) async fn service(&self, color: Color) -> Result<Service, Lost> {
        read_with_retry(self.worker, || self.worker.ports().store.service(color)).await
    }

    fn events(&self, before: &Rollout, after: &Rollout) -> Vec<FeedEvent> {
        let changed = before.status != after.status || before.window != after.window;
        let what = match changed {
            true => format!("{} {}/{}", after.status.as_str(), after.counts().resolved(), after.total),
            false => return Vec::new(),
        };
        vec![FeedEvent { at: self.now(), subject: None, operation: None, rollout: Some(after.number), what }]
    }
}
