//! A step that is a job: started once under a name of its own, adopted if it is there, followed to its end.

use super::{Platform, site};
use crate::domain::{Code, JobName, Selector};
use crate::engine::{Change, Context, Done, Stop};
use crate::ports::{ErrorKind, JobKind, JobSpec, JobState};

/// Makes one attempt at a step that is the job `kind` in the image of `service`. A job that has failed too often parks
/// the operation as `failure`.
pub(super) async fn job_step(
    context: &Context<'_>,
    platform: &Platform,
    kind: JobKind,
    service: Selector,
    failure: Code,
) -> Result<Done, Stop> {
    let cluster = &context.ports.cluster;
    let slot = context.slot;
    let number = if crate::bug!(JobRestarted) { slot.attempts } else { slot.job };
    let name = JobName::of_site(&site(context)?.id, kind.word(), slot.number, number);
    let note = |log: Option<String>| Change::Job(name.to_string(), log);
    let wait = || Stop::Wait {
        code: Code::JobRunning,
        message: format!("the job `{name}` runs"),
        patience: platform.job_patience,
        again: platform.look_again,
        changes: vec![note(None)],
    };
    let Some(job) = cluster.job(&name).await? else {
        let spec = JobSpec { name: name.clone(), service, kind };
        cluster.run_job(&context.call()?, &spec).await.applied_or(ErrorKind::Exists)?;
        if crate::bug!(JobNotAwaited) {
            return Ok(Done::with(vec![note(None)]));
        }
        return Err(wait());
    };
    let message = match job.state {
        JobState::Running => return Err(wait()),
        JobState::Succeeded { failed } => match failed.into_iter().next() {
            None => return Ok(Done::with(vec![note(Some(job.log))])),
            Some((_, message)) => message,
        },
        JobState::Failed { message, theme_missing: true } => {
            return Err(Stop::Park(Code::ThemeMissing, message));
        }
        JobState::Failed { message, theme_missing: false } => message,
    };
    let log_is_kept =
        slot.forward().and_then(|step| slot.steps.get(step)).is_some_and(|step| step.log.is_some());
    if slot.job < platform.job_tries {
        Err(Stop::Note(vec![note(Some(job.log)), Change::NextJob]))
    } else if log_is_kept {
        Err(Stop::Park(failure, format!("the job `{name}` failed: {message}")))
    } else {
        Err(Stop::Note(vec![note(Some(job.log))]))
    }
}
