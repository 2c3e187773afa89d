//! A write of the rollout's record, with what has to be written in the same go: holds, a verdict, the end.

use super::answered;
use super::checkpoint::wait;
use super::owner::Owner;
use super::why::Why;
use crate::domain::rollout::IllegalRollout;
use crate::domain::{Code, Colour, HoldMode, Rollout, Selector};
use crate::engine::Lost;
use crate::ports::{Batch, Call, FeedEvent, Outcome, Refused, StoreError, Write};

impl Owner<'_> {
    /// Writes the rollout, edited, over what the store has, as long as this owner has it. Takes and lets go of the hold
    /// that it then needs; without it the rollout waits. Frees the fleet when it ends.
    pub(super) async fn commit(
        &mut self,
        pages: Vec<Write>,
        edit: impl Fn(&mut Rollout) -> Result<bool, IllegalRollout>,
    ) -> Result<(), Lost> {
        let ports = self.worker.ports();
        let mine = (self.head.owner.clone(), self.head.term);
        let mut fresh = self.head.clone();
        let mut pause = self.worker.settings().pause;
        loop {
            let mut next = fresh.clone();
            if !self.legal(edit(&mut next))? {
                return Err(Lost);
            }
            let condemns = next.condemned && !fresh.condemned;
            let mut writes = self.colours(&mut next, condemns).await?;
            writes.insert(0, Write::Rollout(Box::new(next.clone())));
            writes.extend(pages.iter().cloned());
            let mut events = self.events(&fresh, &next);
            events.extend(self.told.iter().cloned());
            let batch = Batch { writes, events, ..Batch::default() };
            let mut call = self.call()?;
            loop {
                match ports.store.write(&call, &batch).await {
                    Outcome::Applied(()) => {
                        next.version += 1;
                        self.told.clear();
                        self.head = next;
                        return Ok(());
                    }
                    Outcome::NotApplied(Refused::Store(StoreError::Denied(_))) => return Err(Lost),
                    Outcome::NotApplied(Refused::Store(_)) | Outcome::Unknown(_) => {
                        self.pause(&mut pause).await;
                        call = Call { write: call.write, ..self.call()? };
                    }
                    Outcome::NotApplied(_) => break,
                }
            }
            fresh = answered(self.worker, || ports.store.rollout(self.head.number)).await?.ok_or(Lost)?;
            if (fresh.owner.clone(), fresh.term) != mine {
                return Err(Lost);
            }
        }
    }

    /// The records that a change of holds, a verdict, or the end, changes besides.
    async fn colours(&self, next: &mut Rollout, condemns: bool) -> Result<Vec<Write>, Lost> {
        let ports = self.worker.ports();
        let mut writes = Vec::new();
        let (wanted, held) = (next.hold(), next.holds);
        for selector in Selector::ALL {
            let takes = wanted == Some(selector);
            let (stays, condemns) = ((held == Some(selector)) == takes, condemns && selector == next.target);
            if stays && !condemns {
                continue;
            }
            let mut colour = self.colour(selector).await?;
            if condemns {
                self.condemn(next, &mut colour).await?;
            }
            if stays {
                // Only the verdict is new.
            } else if !takes {
                colour.hold.release(next.number);
                next.holds = next.holds.filter(|held| *held != selector);
            } else if colour.hold.take(next.number, HoldMode::Shared) {
                next.holds = Some(selector);
            } else {
                let (now, again) = (self.now(), self.worker.settings().scan);
                next.unsettled = self.head.unsettled;
                let why = Why { code: Code::ColourHeld, message: format!("a deploy has `{selector}`") };
                self.legal(wait(next, why, now, again, None))?;
                continue;
            }
            writes.push(Write::Colour(Box::new(colour)));
        }
        if next.status.ended() && next.kind.moves() {
            let fleet = answered(self.worker, || ports.store.fleet()).await?;
            if fleet.rollout == Some(next.number) {
                writes.push(Write::Fleet(Box::new(crate::domain::Fleet { rollout: None, ..fleet })));
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

    pub(super) async fn colour(&self, selector: Selector) -> Result<Colour, Lost> {
        answered(self.worker, || self.worker.ports().store.colour(selector)).await
    }

    fn events(&self, before: &Rollout, after: &Rollout) -> Vec<FeedEvent> {
        let changed = before.status != after.status || before.window != after.window;
        let what = match changed {
            true => format!("{} {}/{}", after.status.as_str(), after.tally().resolved(), after.total),
            false => return Vec::new(),
        };
        vec![FeedEvent { at: self.now(), subject: None, operation: None, rollout: Some(after.number), what }]
    }
}
