//! A rollout with its sites, and the transitions by its owner and by users.

use std::fmt::Debug;

use cdm_core::domain::rollout::{
    Budget, Counts, IllegalRollout, MemberOutcome, RolloutEvent, RolloutMember, WaveTarget, Window,
};
use cdm_core::domain::{
    Color, Digest, Direction, OperationId, Reason, ReasonCode, Rollout, RolloutKind, RolloutScope,
    RolloutStatus, SiteId, Subject, Uid,
};
use cdm_core::pipelines::NewRollout;

use crate::records::digest;
use crate::search::{StateMachine, Step, Trigger, named};
use crate::{LONG, NOW, actor, worker};

/// A rollout, and the outcomes that its owner has stored.
#[derive(Clone)]
pub(crate) struct RolloutState {
    rollout: Rollout,
    outcomes: Vec<Option<MemberOutcome>>,
}

/// Why a window ends early, as far as the record shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    /// A user request, or the wave is over its budget.
    Stop,
    /// A dependency is missing, or the process shuts down; with the reason.
    Wait(ReasonCode),
}

impl RolloutState {
    /// Returns every initial state of the search.
    pub(crate) fn all() -> Vec<Self> {
        let single = (3, vec![]);
        let canary = (3, vec![WaveTarget::Count(1), WaveTarget::Percent(100)]);
        let wide = (Window::MIN + 2, vec![WaveTarget::Count(1), WaveTarget::Percent(100)]);
        let empty = (0, vec![]);
        let mut all = Vec::new();
        for (total, waves) in [empty, single, canary, wide] {
            for kind in [RolloutKind::Promote, RolloutKind::Upgrade, RolloutKind::Flush] {
                for auto_rollback in [false, true] {
                    for deploys in [false, true] {
                        all.push(Self::new(total, waves.clone(), kind, auto_rollback, deploys));
                    }
                }
            }
        }
        all
    }

    fn new(
        total: u32,
        waves: Vec<WaveTarget>,
        kind: RolloutKind,
        auto_rollback: bool,
        deploys: bool,
    ) -> Self {
        let id = |random| SiteId::parse(&format!("s{random}")).expect("a site id");
        let member = |random| RolloutMember::new(id(random), Uid::from_parts(1, random));
        let draft = NewRollout {
            number: 7,
            kind,
            target: Color::Green,
            digest: Some(digest()),
            scope: RolloutScope::All,
            members: (0..u128::from(total)).map(member).collect(),
            waves,
            max_concurrent: 32,
            budget: Budget::Count(1),
            auto_rollback,
            gate: None,
            bake: std::time::Duration::ZERO,
            after: deploys.then(|| OperationId::on(6, Subject::Service(Color::Green))),
            retry_of: None,
            first_number: 8,
            requested_by: actor(),
            now: NOW,
        };
        let outcomes = vec![None; total as usize];
        Self { rollout: draft.record().expect("a rollout"), outcomes }
    }

    pub(crate) fn status(&self) -> RolloutStatus {
        self.rollout.status
    }

    fn edit(&self, act: impl FnOnce(&mut Rollout) -> Result<(), IllegalRollout>) -> Step<Self> {
        let mut next = self.clone();
        match act(&mut next.rollout) {
            Ok(()) => Step::To(next),
            Err(illegal) => Step::Wrong(illegal.to_string()),
        }
    }

    /// A worker claims the rollout.
    fn claim(&self) -> Step<Self> {
        let mut next = self.clone();
        let claimed = next.rollout.claim(&worker(), NOW);
        match self.status().next(RolloutEvent::Claim) {
            Ok(_) if claimed.is_err() => return Step::Wrong("a legal claim is rejected".to_owned()),
            Ok(_) if next.rollout.term == self.rollout.term => {
                return Step::Wrong("claimed under the same term".to_owned());
            }
            Ok(_) => {}
            Err(illegal) if next.rollout == self.rollout && claimed == Err(illegal) => {
                return named(&illegal, self.status().as_str(), RolloutEvent::Claim.as_str());
            }
            Err(illegal) => return Step::Wrong(format!("{illegal}, and the rollout changed")),
        }
        next.rollout.term = 1;
        if next.rollout.after.is_none()
            && !next.rollout.grant_first_window()
            && let Err(illegal) = next.rollout.settle(RolloutEvent::Succeed, None, NOW)
        {
            return Step::Wrong(illegal.to_string());
        }
        Step::To(next)
    }

    fn request(&self, event: RolloutEvent) -> Step<Self> {
        let mut next = self.clone();
        match next.rollout.request(event, NOW) {
            Ok(()) => Step::To(next),
            Err(illegal) if next.rollout == self.rollout => {
                named(&illegal, self.status().as_str(), event.as_str())
            }
            Err(illegal) => Step::Wrong(format!("{illegal}, and the rollout changed")),
        }
    }

    fn resume(&self, accepted: Option<Digest>) -> Step<Self> {
        let mut next = self.clone();
        match next.rollout.resume(accepted, NOW) {
            Ok(()) if accepted.is_some() && next.rollout.wanted() != accepted => {
                Step::Wrong("the rollout continues with another digest than the accepted one".to_owned())
            }
            Ok(()) => Step::To(next),
            Err(illegal) if next.rollout == self.rollout => {
                named(&illegal, self.status().as_str(), RolloutEvent::Resume.as_str())
            }
            Err(illegal) => Step::Wrong(format!("{illegal}, and the rollout changed")),
        }
    }

    /// Returns the transitions of the owner while the deploy before the rollout is running.
    fn deploys(&self) -> Vec<(Trigger, String, Step<Self>)> {
        let step = |event: &str, step| (Trigger::System, event.to_owned(), step);
        let succeeded = self.edit(|head| {
            head.after = None;
            if head.grant_first_window() { Ok(()) } else { head.settle(RolloutEvent::Succeed, None, NOW) }
        });
        let failed =
            self.edit(|head| head.settle(RolloutEvent::Fail, Some(reason(ReasonCode::ImageNotReady)), NOW));
        let looked = self.edit(|head| match head.control {
            Some(_) => head.proceed(false, NOW),
            None => wait(head, ReasonCode::Deploying),
        });
        vec![step("deploy succeeded", succeeded), step("deploy failed", failed), step("look", looked)]
    }

    /// Returns the sites of the window that the current direction has not handled yet.
    fn remaining(&self) -> Vec<u32> {
        let Window { start, end } = self.rollout.window;
        let open = |ordinal: &u32| match (self.rollout.direction, self.outcomes[*ordinal as usize]) {
            (Direction::Forward, outcome) => outcome.is_none(),
            (Direction::Rollback, outcome) => outcome == Some(MemberOutcome::Moved),
        };
        (start..end).filter(open).collect()
    }

    /// Stores outcomes: `bad` for the first sites, `good` for all others.
    fn count(&self, remaining: &[u32], bad: usize, outcomes: (MemberOutcome, MemberOutcome)) -> Step<Self> {
        let mut next = self.clone();
        for (index, ordinal) in remaining.iter().enumerate() {
            let outcome = if index < bad { outcomes.0 } else { outcomes.1 };
            let before = next.outcomes[*ordinal as usize].replace(outcome);
            next.rollout.count(*ordinal, before, outcome, None);
        }
        next.rollout.flushing = !next.flushable().is_empty();
        Step::To(next)
    }

    /// Returns the sites of the window whose caches are to be flushed.
    fn flushable(&self) -> Vec<u32> {
        let Window { start, end } = self.rollout.window;
        let there = |ordinal: &u32| match self.outcomes[*ordinal as usize] {
            Some(MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::Returned) => true,
            Some(_) | None => false,
        };
        (start..end).filter(there).collect()
    }

    /// Returns the transitions of the owner within a window.
    fn window(&self) -> Vec<(Trigger, String, Step<Self>)> {
        let mut steps = Vec::new();
        let mut step = |event: String, step| steps.push((Trigger::System, event, step));
        let remaining = self.remaining();
        let (bad, good) = match self.rollout.direction {
            Direction::Forward if self.rollout.kind.moves() => (MemberOutcome::Failed, MemberOutcome::Moved),
            Direction::Forward => (MemberOutcome::Parked, MemberOutcome::InPlace),
            Direction::Rollback => (MemberOutcome::Parked, MemberOutcome::Returned),
        };
        if !self.rollout.flushing && !remaining.is_empty() {
            for failed in 0..=remaining.len().min(2) {
                step(
                    format!("{failed} sites {bad:?}, the rest {good:?}"),
                    self.count(&remaining, failed, (bad, good)),
                );
            }
            step("all skipped".to_owned(), self.count(&remaining, 0, (bad, MemberOutcome::SkippedBusy)));
            let Window { start, end } = self.rollout.window;
            if remaining.len() as u32 == end - start && remaining.len() > 1 {
                for failed in 0..2 {
                    step(
                        format!("the first {failed} {bad:?}"),
                        self.count(&remaining[..1], failed, (bad, good)),
                    );
                }
            }
        }
        let flushable = self.flushable();
        if self.rollout.flushing && !flushable.is_empty() {
            step("flush failed".to_owned(), self.count(&flushable, 0, (bad, MemberOutcome::Parked)));
        }
        // Sites that a dead owner moved are flushed before the rest of the window is handled.
        if remaining.is_empty() || self.rollout.flushing {
            step("checkpoint".to_owned(), self.checkpoint(None));
        }
        if self.rollout.control.is_some() || self.rollout.over_budget() {
            step("checkpoint, early".to_owned(), self.checkpoint(Some(Interruption::Stop)));
        }
        step(
            "checkpoint, not ready".to_owned(),
            self.checkpoint(Some(Interruption::Wait(ReasonCode::ServiceNotReady))),
        );
        if self.rollout.direction == Direction::Forward && self.rollout.kind.moves() {
            let changed = self.checkpoint(Some(Interruption::Wait(ReasonCode::DigestChanged)));
            step("checkpoint, another digest".to_owned(), changed);
        }
        steps
    }

    fn checkpoint(&self, interruption: Option<Interruption>) -> Step<Self> {
        let whole = interruption.is_none() && self.remaining().is_empty();
        self.edit(|head| match interruption {
            Some(Interruption::Wait(code)) if head.control.is_none() => {
                head.flushing = false;
                wait(head, code)
            }
            None | Some(_) => {
                head.flushing = false;
                let proceeded = head.proceed(whole, NOW);
                head.job = 1;
                proceeded
            }
        })
    }
}

fn other_digest() -> Digest {
    Digest::parse(&"e".repeat(64)).expect("a digest")
}

fn reason(code: ReasonCode) -> Reason {
    Reason { code, message: "why".to_owned(), since: NOW, until: None }
}

/// As the owner does: during a rollback, the reason for the rollback is kept.
fn wait(head: &mut Rollout, code: ReasonCode) -> Result<(), IllegalRollout> {
    let kept = head.reason.take().filter(|_| head.direction == Direction::Rollback);
    head.settle(RolloutEvent::Wait, Some(kept.unwrap_or(reason(code))), NOW)?;
    head.owner = None;
    head.next_poll_at = Some(NOW.after(LONG));
    Ok(())
}

impl StateMachine for RolloutState {
    fn key(&self) -> String {
        let Rollout {
            kind,
            auto_rollback,
            total,
            status,
            control,
            direction,
            window,
            rollback_end,
            acknowledged_failures,
            flushing,
            ..
        } = &self.rollout;
        let tallies: Vec<Counts> = self.rollout.waves.iter().map(|wave| wave.counts).collect();
        let (owner, after) = (self.rollout.owner.is_some(), self.rollout.after.is_some());
        let accepted = self.rollout.accepted_digest.is_some();
        let why = self.rollout.reason.as_ref().map(|reason| reason.code);
        let remaining = self.remaining().len();
        let moved =
            self.outcomes.iter().skip(window.end as usize).filter(|o| **o == Some(MemberOutcome::Moved));
        format!(
            "{kind:?} {total} {auto_rollback} {} {control:?} {direction:?} {window:?} {rollback_end} {acknowledged_failures} {:?} {remaining} {}",
            status.as_str(),
            (flushing, owner, after, why, accepted),
            tallies
                .iter()
                .map(|t| format!("{}+{}+{}+{} ", t.succeeded, t.failed, t.skipped, t.parked))
                .collect::<String>()
                + &moved.count().to_string(),
        )
    }

    fn events(&self) -> Vec<(Trigger, String, Step<Self>)> {
        let mut events = vec![
            (Trigger::User, "pause".to_owned(), self.request(RolloutEvent::Pause)),
            (Trigger::User, "resume".to_owned(), self.resume(None)),
            (Trigger::User, "resume on another digest".to_owned(), self.resume(Some(other_digest()))),
            (Trigger::Abort, "abort".to_owned(), self.request(RolloutEvent::Abort)),
            (Trigger::System, "claim".to_owned(), self.claim()),
        ];
        if self.status() == RolloutStatus::Running && self.rollout.owner.is_some() {
            events.extend(if self.rollout.after.is_some() { self.deploys() } else { self.window() });
        }
        events
    }

    fn check_invariants(&self) -> Result<(), String> {
        let rollout = &self.rollout;
        let Window { start, end } = rollout.window;
        let mut from = 0;
        for wave in &rollout.waves {
            let mut counted = Counts::default();
            self.outcomes[from as usize..wave.end as usize]
                .iter()
                .flatten()
                .for_each(|one| counted.add(*one));
            if counted != wave.counts {
                return Err(format!("the wave's tally is {:?}, and its sites have {counted:?}", wave.counts));
            }
            if rollout.direction == Direction::Forward && start < wave.end && wave.end < end {
                return Err("a window crosses the end of its wave".to_owned());
            }
            from = wave.end;
        }
        let counts = rollout.counts().resolved() + rollout.running() + rollout.pending();
        let checks = [
            (end.saturating_sub(start) <= Window::MAX && end <= rollout.total, "a window is too wide"),
            (counts == rollout.total, "the counts do not sum to the total"),
            (
                rollout.status.runnable() || rollout.owner.is_none(),
                "a rollout that does not run has an owner",
            ),
            (
                rollout.status.runnable() || rollout.status.ended() || rollout.control.is_none(),
                "a request is still pending",
            ),
            (rollout.status.ended() == rollout.finished_at.is_some(), "an end without its time"),
            (
                rollout.lock().is_none() || rollout.status == RolloutStatus::Running,
                "a rollout at rest holds a lock",
            ),
        ];
        if let Some((_, wrong)) = checks.iter().find(|(condition, _)| !condition) {
            return Err((*wrong).to_owned());
        }
        match rollout.status {
            RolloutStatus::Succeeded if rollout.counts().resolved() != rollout.total => {
                Err("succeeded, with sites left".to_owned())
            }
            RolloutStatus::Halted | RolloutStatus::Failed if rollout.reason.is_none() => {
                Err(format!("{} without a reason", rollout.status.as_str()))
            }
            _ => Ok(()),
        }
    }

    fn rests(&self) -> bool {
        !self.status().runnable()
    }

    fn ended(&self) -> bool {
        self.status().ended()
    }
}
