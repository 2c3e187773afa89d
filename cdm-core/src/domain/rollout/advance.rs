//! The transitions of a rollout: one function without calls decides everything.

use std::time::Duration;

use super::{
    Control, DeployState, Effect, IllegalRollout, Interruption, PendingFlush, Progress, Report, Rollout,
    RolloutEvent, RolloutPhase, RolloutStatus, Timing, Transition, WaitReason, Window, truncate,
};
use crate::domain::fence::Direction;
use crate::domain::{Digest, Freeze, Reason, ReasonCode, Timestamp, WorkerId};

/// The rollout after an event, and the effects for its owner.
type Advanced = Result<Vec<Effect>, IllegalRollout>;

impl Rollout {
    /// Returns the rollout after an event, and the effects that its owner executes.
    ///
    /// Between two reports of the owner, a requested abort is applied first, then a pause, then the budget. Only then
    /// are further sites granted: always within one wave, and at most twice as many as [`Window::size`].
    ///
    /// # Errors
    /// [`IllegalRollout`] if the event is not possible in the present phase and status.
    pub fn advance(
        &self,
        event: &RolloutEvent,
        timing: &Timing,
        now: Timestamp,
    ) -> Result<(Self, Vec<Effect>), IllegalRollout> {
        use RolloutEvent as E;
        use RolloutPhase as P;
        let mut next = self.clone();
        let effects = match (&self.phase, event) {
            (_, E::Pause) => next.request(Control::Pause, now),
            (_, E::Abort) => next.request(Control::Abort, now),
            (_, E::Resume(accepted)) => next.resume(*accepted, now),
            (_, E::Claim(worker)) => next.claim(worker, now),
            (_, E::Locked { service, claims }) => {
                let message = format!("a deploy holds the lock on `{service}`");
                let effects = next.wait(ReasonCode::ServiceLocked, message, timing.scan, None, now);
                next.needs_recovery = *claims;
                effects
            }
            (P::Deploying(_), E::DeployPolled(state)) => next.deploy_polled(state, timing, now),
            (P::Moving(_) | P::RollingBack { flushing: false, .. }, E::SitesMoved(report)) => {
                next.record(report, now);
                next.go_on(report, timing, now)
            }
            (
                P::Moving(_) | P::RollingBack { flushing: false, .. },
                E::CachesFlushed(report, interruption),
            ) => {
                next.record(report, now);
                next.edit_progress(|progress| progress.pending_flush = None);
                match interruption {
                    None => next.go_on(report, timing, now),
                    Some(_) => Ok(Vec::new()),
                }
            }
            (
                P::Flushing(progress) | P::RollingBack { flushing: true, progress, .. },
                E::CachesFlushed(report, interruption),
            ) => {
                next.record(report, now);
                next.edit_progress(|progress| progress.pending_flush = None);
                let flushed = progress.pending_flush.map_or(0, |pending| pending.window.end);
                let whole = flushed >= progress.window.end;
                match report.unflushed.filter(|_| !whole) {
                    Some(_) => Ok(next.begin_last_flush(report, timing, now)),
                    None => next.go_on_after_flush(report, interruption.as_ref(), timing, now),
                }
            }
            (
                P::Moving(_) | P::Flushing(_) | P::Baking { .. } | P::RollingBack { .. },
                E::Interrupted(report, interruption),
            ) => {
                next.record(report, now);
                next.interrupt(report, interruption, timing, now)
            }
            (P::Deploying(_), E::SitesMoved(_) | E::CachesFlushed(..) | E::Interrupted(..))
            | (P::Flushing(_) | P::RollingBack { flushing: true, .. }, E::SitesMoved(_))
            | (P::Baking { .. }, E::SitesMoved(_) | E::CachesFlushed(..))
            | (
                P::Moving(_) | P::Flushing(_) | P::Baking { .. } | P::RollingBack { .. },
                E::DeployPolled(_),
            ) => Err(IllegalRollout { status: self.phase.as_str(), event: event.as_str() }),
        }?;
        if event.is_of_owner() {
            let moves = next.status == RolloutStatus::Running && next.phase.moves_sites();
            next.needs_recovery = event.claims() || moves;
        }
        Ok((next, effects))
    }

    fn claim(&mut self, worker: &WorkerId, now: Timestamp) -> Advanced {
        self.status = self.status.next(Transition::Claim)?;
        self.owner = Some(worker.clone());
        self.term = self.term.next();
        self.next_poll_at = None;
        self.reason = self.reason.take().filter(|_| self.phase.direction() == Direction::Rollback);
        self.started_at = self.started_at.or(Some(now));
        self.record_sample(now);
        if let RolloutPhase::Deploying(deploy) = &self.phase {
            let deploy = deploy.clone();
            self.needs_recovery = false;
            return Ok(vec![Effect::AwaitDeploy(deploy)]);
        }
        if let RolloutPhase::Baking { until, progress } = self.phase
            && (self.control.is_none() || crate::bug!(PauseForgotten))
        {
            if until > now {
                return self.bake_until(until, now);
            }
            self.phase = RolloutPhase::Moving(progress);
        }
        let recovers = self.needs_recovery && !crate::bug!(WindowNotSettled);
        if !self.phase.is_flushing() {
            // The sites from there on may have moved since the flush began, so that a later one includes them.
            self.edit_progress(|progress| {
                let end = progress.flush_from;
                progress.pending_flush = progress.pending_flush.and_then(|pending| pending.until(end));
            });
        }
        let progress = self.phase.progress();
        let flush = progress.pending_flush.map(Effect::Flush);
        self.needs_recovery |= !self.phase.is_flushing();
        if let (true, Some(flush)) = (self.phase.is_flushing(), &flush) {
            return Ok(vec![flush.clone()]);
        }
        if progress.window.end == 0 {
            return self.next_window(now);
        }
        let recover = recovers.then_some(Effect::Recover(progress.window));
        Ok(recover.into_iter().chain([Effect::Move(progress.window)]).chain(flush).collect())
    }

    fn deploy_polled(&mut self, state: &DeployState, timing: &Timing, now: Timestamp) -> Advanced {
        if self.control.is_some() {
            return self.stop(now);
        }
        match state {
            DeployState::Succeeded => {
                self.phase = RolloutPhase::Moving(Progress::default());
                self.waiting_since = None;
                self.next_window(now)
            }
            DeployState::Failed(why) => {
                let message = match &self.phase {
                    RolloutPhase::Deploying(deploy) => format!("{deploy} did not succeed: {why}"),
                    _ => why.clone(),
                };
                let reason = Reason { code: ReasonCode::ImageNotReady, message, since: now, until: None };
                self.settle(Transition::Fail, Some(reason), now)?;
                Ok(vec![Effect::Release])
            }
            DeployState::Running => {
                let message = match &self.phase {
                    RolloutPhase::Deploying(deploy) => format!("{deploy} is under way"),
                    _ => String::new(),
                };
                self.wait(ReasonCode::Deploying, message, timing.scan, None, now)
            }
        }
    }

    /// Records the outcomes of a report.
    fn record(&mut self, report: &Report, now: Timestamp) {
        for one in &report.outcomes {
            self.count(one.ordinal, one.before, one.site.outcome, one.digest);
            self.record_failure(&one.site);
        }
        if !report.outcomes.is_empty() {
            self.waiting_since = None;
        }
        self.edit_progress(|progress| {
            if let Some(open) = report.open {
                progress.window.start = progress.window.start.max(open);
            }
        });
        self.record_sample(now);
    }

    /// Continues while sites move and nothing interrupts them: begins the flush of the sites that have moved, and grants
    /// further sites.
    fn go_on(&mut self, report: &Report, timing: &Timing, now: Timestamp) -> Advanced {
        if (self.control.is_some() && !crate::bug!(PauseForgotten)) || self.exceeds_budget() {
            // The owner stops first if sites are still in flight.
            return match report.open {
                None => self.flush_first(report, None, timing, now),
                Some(_) => Ok(Vec::new()),
            };
        }
        let Progress { window, flush_from, .. } = self.phase.progress();
        let whole = report.open.is_none();
        if whole && self.at_boundary() {
            return self.flush_first(report, None, timing, now);
        }
        let mut effects = Vec::new();
        let moved = report.open.unwrap_or(window.end);
        // A report that is written for a grant begins a flush earlier than another one.
        let half = Window::size(self.spec.max_concurrent) / 2;
        let least = match report.open {
            None => 1,
            Some(open) if self.next_grant(open).is_some() => half,
            Some(_) => 2 * half,
        };
        let pending = self.phase.progress().pending_flush.is_some();
        if !pending && moved >= flush_from + least {
            match report.unflushed.filter(|first| *first < moved) {
                Some(_) => {
                    let pending = self.edit_progress(|progress| progress.begin_flush(moved, None));
                    if crate::bug!(TrailingForgotten) {
                        self.edit_progress(|progress| progress.pending_flush = None);
                    } else {
                        effects.push(Effect::Flush(pending));
                    }
                }
                None => self.edit_progress(|progress| (progress.flush_from, progress.round) = (moved, 1)),
            }
        }
        let unflushed = window.end - self.phase.progress().flush_from;
        match report.open {
            None if unflushed < PendingFlush::MAX => effects.extend(self.next_window(now)?),
            None => {}
            Some(open) => {
                if let Some(granted) = self.next_grant(open) {
                    self.edit_progress(|progress| progress.window.end = granted.end);
                    effects.push(Effect::Move(granted));
                }
            }
        }
        Ok(effects)
    }

    /// Flushes the caches of the moved sites, if there are any, before the rollout continues at a boundary, or stops.
    fn flush_first(
        &mut self,
        report: &Report,
        interruption: Option<&Interruption>,
        timing: &Timing,
        now: Timestamp,
    ) -> Advanced {
        let progress = self.phase.progress();
        if progress.pending_flush.is_some() {
            self.phase = self.phase.flushing(progress);
            self.set_flush_reason(timing, now);
            return Ok(Vec::new());
        }
        if report.unflushed.is_some() {
            return Ok(self.begin_last_flush(report, timing, now));
        }
        self.go_on_after_flush(report, interruption, timing, now)
    }

    /// Begins the flush of all moved sites of the window.
    fn begin_last_flush(&mut self, report: &Report, timing: &Timing, now: Timestamp) -> Vec<Effect> {
        let mut progress = self.phase.progress();
        let pending = progress.begin_flush(progress.window.end, report.open);
        self.phase = self.phase.flushing(progress);
        self.set_flush_reason(timing, now);
        vec![Effect::Flush(pending)]
    }

    /// Sets the reason of a wait for jobs that flush caches. A rollback keeps its own reason.
    fn set_flush_reason(&mut self, timing: &Timing, now: Timestamp) {
        if self.phase.direction() == Direction::Rollback && self.reason.is_some() {
            return;
        }
        let message = "jobs flush the caches of the sites that were moved".to_owned();
        let until = Some(now.after(timing.job_timeout));
        self.reason = Some(Reason { code: ReasonCode::JobRunning, message, since: now, until });
    }

    /// Continues once no site is in flight and no cache has to be flushed.
    fn go_on_after_flush(
        &mut self,
        report: &Report,
        interruption: Option<&Interruption>,
        timing: &Timing,
        now: Timestamp,
    ) -> Advanced {
        let rolls_back = self.phase.direction() == Direction::Rollback;
        let progress = self.phase.progress();
        if !matches!(self.phase, RolloutPhase::Baking { .. }) {
            self.phase = self.phase.moving(progress);
        }
        // The wait for the flush has ended.
        self.reason = self.reason.take().filter(|reason| reason.code != ReasonCode::JobRunning || rolls_back);
        if self.control.is_some() && !crate::bug!(PauseForgotten) {
            return self.stop(now);
        }
        self.control = None;
        if self.exceeds_budget() {
            return self.halt(now);
        }
        match interruption {
            Some(Interruption::Inconclusive(message)) => {
                let message = truncate(message);
                let code = ReasonCode::GateInconclusive;
                let reason = Reason { code, message, since: now, until: None };
                self.settle(Transition::Pause, Some(reason), now)?;
                Ok(vec![Effect::Release])
            }
            Some(Interruption::Frozen(freeze)) => self.wait_for_freeze(freeze, now),
            Some(Interruption::DigestChanged(why)) => {
                self.wait(why.code, why.message.clone(), timing.scan, None, now)
            }
            Some(_) | None if report.open.is_some() => {
                let recover = report.claims.then_some(Effect::Recover(progress.window));
                Ok(recover.into_iter().chain([Effect::Move(progress.window)]).collect())
            }
            Some(_) | None => self.next_window(now),
        }
    }

    /// Ends or suspends the work of the owner, whose sites in flight have ended.
    fn interrupt(
        &mut self,
        report: &Report,
        interruption: &Interruption,
        timing: &Timing,
        now: Timestamp,
    ) -> Advanced {
        use Interruption as I;
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| now.since(since));
        let slow = timing.growing_pause(waited);
        let requested = self.control.is_some();
        let pending = self.phase.progress().pending_flush.is_some();
        match interruption {
            I::Unreachable(why) => self.wait(why.code, why.message.clone(), slow, None, now),
            I::FlushBlocked(why) | I::ClusterUnavailable(why) if !requested => {
                self.wait(why.code, why.message.clone(), slow, Some(timing.backend_timeout), now)
            }
            I::NotReady(why) if !requested => {
                self.wait(why.code, why.message.clone(), timing.scan, Some(timing.ready_timeout), now)
            }
            I::Stopping if !requested || pending || report.unflushed.is_some() => {
                let reason = self.reason.take().filter(|_| self.phase.direction() == Direction::Rollback);
                self.settle(Transition::Wait, reason, now)?;
                self.owner = None;
                Ok(vec![Effect::Release])
            }
            I::FlushBlocked(_) => self.go_on_after_flush(report, None, timing, now),
            I::ControlRequested
            | I::Budget
            | I::Inconclusive(_)
            | I::Frozen(_)
            | I::DigestChanged(_)
            | I::NotReady(_)
            | I::ClusterUnavailable(_)
            | I::Stopping => self.flush_first(report, Some(interruption), timing, now),
        }
    }

    /// Applies the requested pause or abort.
    fn stop(&mut self, now: Timestamp) -> Advanced {
        match self.control.take() {
            Some(Control::Abort) => self.settle(Transition::Abort, None, now)?,
            Some(Control::Pause) | None => {
                let message = "paused on request".to_owned();
                let paused = Reason { code: ReasonCode::Paused, message, since: now, until: None };
                // A rollback ends with the reason that started it.
                let kept = self.reason.take().filter(|_| self.phase.direction() == Direction::Rollback);
                self.settle(Transition::Pause, Some(kept.unwrap_or(paused)), now)?;
            }
        }
        Ok(vec![Effect::Release])
    }

    /// Returns whether the rollout has to halt.
    fn exceeds_budget(&self) -> bool {
        self.phase.direction() == Direction::Forward && self.over_budget() && !crate::bug!(BudgetIgnored)
    }

    /// Returns the ordinal after the last site that the present direction moves.
    fn end(&self) -> u32 {
        match self.phase {
            RolloutPhase::RollingBack { end, .. } => end,
            _ => self.total,
        }
    }

    /// Returns whether the caches of all moved sites are flushed before further sites are granted: no site is left, or a
    /// bake time follows.
    fn at_boundary(&self) -> bool {
        let at = self.phase.progress().window.end;
        let bakes = self.phase.direction() == Direction::Forward && !self.spec.bake.is_zero();
        at >= self.end() || (bakes && self.waves.iter().any(|wave| wave.end == at))
    }

    /// Returns the sites that are granted while earlier ones still move, so that the owner does not run out of sites.
    /// `open` is the first site without an outcome. A rollout with a health gate gets them only when every granted site
    /// has an outcome.
    pub fn next_grant(&self, open: u32) -> Option<Window> {
        let stops = self.control.is_some() || self.exceeds_budget() || !self.phase.moves_sites();
        let size = Window::size(self.spec.max_concurrent);
        let Progress { window: Window { end, .. }, flush_from, .. } = self.phase.progress();
        let forward = self.phase.direction() == Direction::Forward;
        let limit = match (forward, self.wave()) {
            (true, Some(wave)) => self.waves[wave].end,
            _ => self.end(),
        };
        let full = end - open > size || end - flush_from >= PendingFlush::MAX;
        if stops || end >= limit || full || (forward && self.spec.gate.is_some()) {
            return None;
        }
        Some(Window { start: end, end: limit.min(end + size).min(flush_from + PendingFlush::MAX) })
    }

    /// Returns whether a flush of the moved sites begins while later ones move. `open` is the first site without an
    /// outcome. Each flush is a job, so that it begins only for as many sites as one window has.
    pub fn begins_flush(&self, open: u32) -> bool {
        let Progress { flush_from, pending_flush, .. } = self.phase.progress();
        let moved = open.saturating_sub(flush_from);
        pending_flush.is_none() && self.phase.moves_sites() && moved >= Window::size(self.spec.max_concurrent)
    }

    /// Grants the next sites when no granted site is open, begins the bake time of a wave, or ends the rollout.
    fn next_window(&mut self, now: Timestamp) -> Advanced {
        let start = self.phase.progress().window.end;
        if start >= self.end() {
            match self.phase.direction() {
                Direction::Forward => self.settle(Transition::Succeed, None, now)?,
                Direction::Rollback => {
                    let reason = self.reason.take();
                    self.settle(Transition::Fail, reason, now)?;
                }
            }
            return Ok(vec![Effect::Release]);
        }
        let ends = self.waves.iter().map(|wave| wave.end);
        let limit = match self.phase.direction() {
            Direction::Forward => ends.clone().find(|end| *end > start).unwrap_or(self.total),
            Direction::Rollback => self.end(),
        };
        self.waiting_since = None;
        let window = Window { start, end: limit.min(start + Window::size(self.spec.max_concurrent)) };
        let begins_wave = start > 0 && ends.into_iter().any(|end| end == start);
        self.edit_progress(|progress| progress.window = window);
        if begins_wave {
            self.acknowledged_failures = 0;
            self.unhealthy = 0;
            if let RolloutPhase::Moving(progress) = self.phase
                && !self.spec.bake.is_zero()
                && !crate::bug!(BakeSkipped)
            {
                let until = now.after(self.spec.bake);
                self.phase = RolloutPhase::Baking { until, progress };
                return self.bake_until(until, now);
            }
        }
        Ok(vec![Effect::Move(window)])
    }

    fn bake_until(&mut self, until: Timestamp, now: Timestamp) -> Advanced {
        let reason = self.baking_reason(now);
        self.settle(Transition::Wait, reason, now)?;
        self.owner = None;
        self.next_poll_at = Some(until);
        Ok(vec![Effect::Release])
    }

    /// Returns the reason of the present bake time. Returns `None` once it is over.
    fn baking_reason(&self, now: Timestamp) -> Option<Reason> {
        let RolloutPhase::Baking { until, .. } = self.phase else { return None };
        if until <= now {
            return None;
        }
        let wave = self.wave().map_or("", |wave| self.waves[wave].name.as_str());
        let message = format!("the wave `{wave}` starts after the bake time of the previous wave");
        Some(Reason { code: ReasonCode::Baking, message, since: now, until: Some(until) })
    }

    /// Stops a rollout that has exceeded its budget, or begins its rollback.
    fn halt(&mut self, now: Timestamp) -> Advanced {
        let wave = self.wave();
        let allowed = wave.map_or(0, |wave| self.spec.budget.allows(self.wave_size(wave)));
        let rejected = self.unhealthy > allowed && !crate::bug!(GateAcquits);
        let reject = (rejected && !self.image_rejected).then_some(Effect::RejectImage);
        self.image_rejected |= rejected;
        let failed = wave.map_or(0, |wave| self.waves[wave].counts.failed);
        let name = wave.map_or("", |wave| self.waves[wave].name.as_str());
        let message =
            format!("{failed} sites of the wave `{name}` failed, which exceeds its budget of {allowed}");
        let reason = Reason { code: ReasonCode::BudgetExceeded, message, since: now, until: None };
        let last = if self.spec.auto_rollback && self.spec.kind.moves() {
            let end = self.phase.progress().window.end;
            let progress = Progress::default();
            self.phase = RolloutPhase::RollingBack { end, flushing: false, progress };
            self.reason = Some(reason);
            self.next_window(now)?
        } else {
            self.settle(Transition::Halt, Some(reason), now)?;
            vec![Effect::Release]
        };
        Ok(reject.into_iter().chain(last).collect())
    }

    /// Makes the rollout wait, without an owner, until the next poll after `pause`. A rollout that has waited for longer
    /// than `timeout` is paused with its reason, until a user resumes it.
    fn wait(
        &mut self,
        mut code: ReasonCode,
        mut message: String,
        pause: Duration,
        timeout: Option<Duration>,
        now: Timestamp,
    ) -> Advanced {
        let since = *self.waiting_since.get_or_insert(now);
        let deadline = timeout.map(|timeout| since.after(timeout));
        let timed_out = deadline.is_some_and(|deadline| now >= deadline);
        if timed_out && WaitReason::is_of_backend(code) {
            message = format!("{message}; gave up after {} s", now.since(since).as_secs());
            code = if code == ReasonCode::Denied { code } else { ReasonCode::DeadlineExceeded };
        }
        let kept = self.reason.take().filter(|_| self.phase.direction() == Direction::Rollback);
        let reason = kept.unwrap_or(Reason { code, message, since, until: deadline });
        self.settle(if timed_out { Transition::Pause } else { Transition::Wait }, Some(reason), now)?;
        self.owner = None;
        self.next_poll_at = Some(now.after(pause)).filter(|_| !timed_out);
        Ok(vec![Effect::Release])
    }

    /// Makes the rollout wait until the freeze ends or is removed.
    fn wait_for_freeze(&mut self, freeze: &Freeze, now: Timestamp) -> Advanced {
        let reason =
            Reason { code: ReasonCode::Frozen, message: freeze.describe(), since: now, until: freeze.until };
        self.settle(Transition::Wait, Some(reason), now)?;
        self.owner = None;
        let poll = now.after(Timing::FREEZE_POLL);
        self.next_poll_at = Some(freeze.until.map_or(poll, |until| until.min(poll)));
        Ok(vec![Effect::Release])
    }

    /// Applies a pause or an abort. That of a started rollout is stored in [`Rollout::control`], and takes effect once
    /// no site is in flight; any other takes effect at once.
    fn request(&mut self, control: Control, now: Timestamp) -> Advanced {
        let transition = match control {
            Control::Pause => Transition::Pause,
            Control::Abort => Transition::Abort,
        };
        let status = self.status.next(transition)?;
        let started = self.owner.is_some() || self.phase.progress().window.end > 0;
        if self.status.runnable() && started {
            self.control = self.control.max(Some(control));
        } else {
            self.take_status(status, now);
        }
        Ok(Vec::new())
    }

    /// Resumes the rollout. A waiting rollout is resumed only with an accepted digest, or if it waits because the digest
    /// has changed. A digest is accepted neither while the rollout waits for its own deploy or is rolled back, nor if it
    /// moves no sites.
    fn resume(&mut self, accepted: Option<Digest>, now: Timestamp) -> Advanced {
        let changed = self.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged);
        let accepts = self.moves_to_target();
        let waits = self.status == RolloutStatus::Waiting;
        let open = !waits || (self.control.is_none() && (changed || accepted.is_some()));
        if !open || (accepted.is_some() && !accepts) {
            return Err(IllegalRollout { status: self.status.as_str(), event: Transition::Resume.as_str() });
        }
        let status = self.status.next(Transition::Resume)?;
        if self.status == RolloutStatus::Halted {
            self.acknowledged_failures = self.wave().map_or(0, |wave| self.waves[wave].counts.failed);
            self.unhealthy = 0;
        }
        self.take_status(status, now);
        if let Some(baking) = self.baking_reason(now) {
            self.next_poll_at = baking.until;
            self.reason = Some(baking);
        }
        if accepted.is_some() && accepted != self.wanted() {
            self.accepted_digest = accepted.filter(|_| accepted != self.spec.digest);
            // The failures so far are of another image.
            self.unhealthy = 0;
            self.image_rejected = false;
        }
        Ok(Vec::new())
    }

    /// Sets the status that a user has requested. A requested abort stays; a requested pause is withdrawn.
    fn take_status(&mut self, status: RolloutStatus, now: Timestamp) {
        self.control = self.control.filter(|requested| *requested == Control::Abort);
        self.waiting_since = None;
        self.status = status;
        self.reason = self.reason.take().filter(|_| self.phase.direction() == Direction::Rollback);
        self.next_poll_at = None;
        if status.ended() {
            self.finished_at = Some(now);
        }
    }

    /// Changes the status, and sets the reason of the new one.
    fn settle(
        &mut self,
        transition: Transition,
        reason: Option<Reason>,
        now: Timestamp,
    ) -> Result<(), IllegalRollout> {
        self.status = self.status.next(transition)?;
        self.reason = reason;
        if !self.status.runnable() {
            self.owner = None;
            self.next_poll_at = None;
        }
        if self.status.ended() {
            self.finished_at = Some(now);
        }
        Ok(())
    }

    /// Edits the progress of the present phase. A rollout that waits for its deploy has none.
    fn edit_progress<T>(&mut self, edit: impl FnOnce(&mut Progress) -> T) -> T {
        match &mut self.phase {
            RolloutPhase::Deploying(_) => edit(&mut Progress::default()),
            RolloutPhase::Moving(progress)
            | RolloutPhase::Flushing(progress)
            | RolloutPhase::Baking { progress, .. }
            | RolloutPhase::RollingBack { progress, .. } => edit(progress),
        }
    }
}

impl RolloutEvent {
    /// Returns whether the owner reports the event, apart from its claim.
    const fn is_of_owner(&self) -> bool {
        match self {
            Self::DeployPolled(_) | Self::SitesMoved(_) | Self::CachesFlushed(..) | Self::Interrupted(..) => {
                true
            }
            Self::Pause | Self::Resume(_) | Self::Abort | Self::Claim(_) | Self::Locked { .. } => false,
        }
    }

    /// Returns whether sites of the window can carry a claim although no site is in flight.
    const fn claims(&self) -> bool {
        match self {
            Self::SitesMoved(report) | Self::CachesFlushed(report, _) | Self::Interrupted(report, _) => {
                report.claims
            }
            _ => false,
        }
    }

    /// Returns the name of the event in error messages.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume(_) => "resume",
            Self::Abort => "abort",
            Self::Claim(_) => "claim",
            Self::Locked { .. } => "locked",
            Self::DeployPolled(_) => "deploy polled",
            Self::SitesMoved(_) => "sites moved",
            Self::CachesFlushed(..) => "caches flushed",
            Self::Interrupted(..) => "interrupted",
        }
    }
}
