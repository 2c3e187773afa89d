//! A write of the rollout's record, with what has to be written in the same go: holds, a verdict, the end.

use super::answered;
use super::checkpoint::wait;
use super::driver::RolloutRun;
use super::why::Why;
use crate::domain::rollout::IllegalRollout;
use crate::domain::{Color, LockMode, ReasonCode, Rollout, Service};
use crate::engine::{Backoff, Lost, Pauses, Unwritten, is_transient, retry_write};
use crate::ports::{FeedEvent, Mutation, WriteBatch, WriteError};

impl RolloutRun<'_> {
    /// Writes the rollout, edited, over what the store has, as long as this owner has it. Takes and lets go of the hold
    /// that it then needs; without it the rollout waits. Frees the fleet when it ends.
    pub(super) async fn commit(
        &mut self,
        pages: Vec<Mutation>,
        edit: impl Fn(&mut Rollout) -> Result<bool, IllegalRollout>,
    ) -> Result<(), Lost> {
        let ports = self.worker.ports();
        let mine = (self.head.owner.clone(), self.head.term);
        let mut fresh = self.head.clone();
        let backoff = Backoff::of(self.worker.settings());
        loop {
            let mut next = fresh.clone();
            if !self.legal(edit(&mut next))? {
                return Err(Lost);
            }
            let condemns = next.image_rejected && !fresh.image_rejected;
            let mut writes = self.services(&mut next, condemns).await?;
            writes.insert(0, Mutation::Rollout(Box::new(next.clone())));
            writes.extend(pages.iter().cloned());
            let mut events = self.events(&fresh, &next);
            events.extend(self.told.iter().cloned());
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
                    self.told.clear();
                    self.head = next;
                    return Ok(());
                }
                Err(Unwritten { error: WriteError::Store(_), .. }) => return Err(Lost),
                Err(_) => {}
            }
            fresh = answered(self.worker, || ports.store.rollout(self.head.number)).await?.ok_or(Lost)?;
            if (fresh.owner.clone(), fresh.term) != mine {
                return Err(Lost);
            }
        }
    }

    /// The records that a change of holds, a verdict, or the end, changes besides.
    async fn services(&self, next: &mut Rollout, condemns: bool) -> Result<Vec<Mutation>, Lost> {
        let ports = self.worker.ports();
        let mut writes = Vec::new();
        let (wanted, held) = (next.lock(), next.locked_color);
        for color in Color::ALL {
            let takes = wanted == Some(color);
            let (stays, condemns) = ((held == Some(color)) == takes, condemns && color == next.target);
            if stays && !condemns {
                continue;
            }
            let mut service = self.service(color).await?;
            if condemns {
                self.condemn(next, &mut service).await?;
            }
            if stays {
                // Only the verdict is new.
            } else if !takes {
                service.lock.release(next.number);
                next.locked_color = next.locked_color.filter(|held| *held != color);
            } else if service.lock.acquire(next.number, LockMode::Shared) {
                next.locked_color = Some(color);
            } else {
                let (now, again) = (self.now(), self.worker.settings().scan);
                next.needs_recovery = self.head.needs_recovery;
                let why = Why { code: ReasonCode::ServiceLocked, message: format!("a deploy has `{color}`") };
                self.legal(wait(next, why, now, again, None))?;
                continue;
            }
            writes.push(Mutation::Service(Box::new(service)));
        }
        if next.status.ended() && next.kind.moves() {
            let fleet = answered(self.worker, || ports.store.fleet()).await?;
            if fleet.rollout == Some(next.number) {
                writes.push(Mutation::Fleet(Box::new(crate::domain::Fleet { rollout: None, ..fleet })));
            }
        }
        Ok(writes)
    }

    /// An illegal transition is a bug: it is logged, and nothing is stored.
    fn legal<T>(&self, taken: Result<T, IllegalRollout>) -> Result<T, Lost> {
        taken.map_err(|illegal| {
            self.worker.illegal(&illegal);
            Lost
        })
    }

    pub(super) async fn service(&self, color: Color) -> Result<Service, Lost> {
        answered(self.worker, || self.worker.ports().store.service(color)).await
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
