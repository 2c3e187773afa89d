//! Steps that are jobs: each starts one job under a unique name, adopts it if it exists, and follows it to its end.

use super::site;
use crate::domain::{Color, JobName, ReasonCode};
use crate::engine::{Change, StepContext, StepError, StepOutput, StepResult};
use crate::ports::{ErrorKind, JobFailure, JobKind, JobSpec, JobState};

#[derive(Debug)]
pub(super) struct Failed {
    name: JobName,
    message: String,
    pub(super) cause: JobFailure,
    log: String,
}

/// Makes one attempt at a step that is the job `kind` in the image of `service`. After too many failed jobs the
/// operation is parked with the code of the cause that the output names, or else with `failure`.
pub(super) async fn job_step(
    context: &StepContext<'_>,
    kind: JobKind,
    service: Color,
    failure: ReasonCode,
) -> StepResult {
    match follow(context, kind, service).await? {
        Ok(done) => Ok(done),
        Err(failed) if failed.cause.may_pass() => Err(again_or_park(context, failed, failure)),
        Err(failed) => Err(park(context, failed, failure)),
    }
}

/// Reads the step's job, and starts it if it does not exist.
pub(super) async fn follow(
    context: &StepContext<'_>,
    kind: JobKind,
    service: Color,
) -> Result<Result<StepOutput, Failed>, StepError> {
    let cluster = &context.ports.cluster;
    let operation = context.operation;
    let number = if crate::bug!(JobRestarted) { operation.attempts } else { operation.job };
    let name = JobName::of_site(&site(context)?.id, kind.word(), operation.number, number);
    let note = |log: Option<String>| Change::Job(name.to_string(), log);
    let wait = || StepError::Wait {
        code: ReasonCode::JobRunning,
        message: format!("the job `{name}` is running"),
        timeout: context.settings.job_timeout,
        again: context.settings.poll_interval,
        changes: vec![note(None)],
    };
    let Some(job) = cluster.job(&name).await? else {
        let spec = JobSpec { name: name.clone(), service, kind };
        cluster.run_job(&context.call()?, &spec).await.applied_or(ErrorKind::Exists)?;
        if crate::bug!(JobNotAwaited) {
            return Ok(Ok(StepOutput::with(vec![note(None)])));
        }
        return Err(wait());
    };
    let done = |log: String| Ok(Ok(StepOutput::with(vec![note(Some(log))])));
    let (message, cause) = match job.state {
        JobState::Running => return Err(wait()),
        JobState::Succeeded { failed } => match failed.into_iter().next() {
            None => return done(job.log),
            Some((_, message)) => {
                let cause = JobFailure::of_output(&message);
                (message, cause)
            }
        },
        JobState::Failed { message, cause } => (message, cause),
    };
    if cause == JobFailure::EndedEarly && crate::bug!(ExitProvesFlush) {
        return done(job.log);
    }
    if cause == JobFailure::InstallIncomplete && crate::bug!(AddressProvesInstall) {
        return done(job.log);
    }
    Ok(Err(Failed { name, message, cause, log: job.log }))
}

/// Starts another job; parks the operation after `job_tries` failed ones.
pub(super) fn again_or_park(context: &StepContext<'_>, failed: Failed, failure: ReasonCode) -> StepError {
    if context.operation.job < context.settings.job_tries {
        return StepError::PersistAndRetry(vec![
            Change::Job(failed.name.to_string(), Some(failed.log)),
            Change::NextJob,
        ]);
    }
    park(context, failed, failure)
}

/// Parks the operation, once the job's output is stored.
pub(super) fn park(context: &StepContext<'_>, failed: Failed, failure: ReasonCode) -> StepError {
    let Failed { name, message, cause, log } = failed;
    let step = context.operation.forward().and_then(|step| context.operation.steps.get(step));
    let is_kept = step.is_some_and(|step| step.log.as_deref() == Some(log.as_str()));
    if is_kept {
        StepError::Park(cause.code().unwrap_or(failure), format!("the job `{name}` failed: {message}"))
    } else {
        StepError::PersistAndRetry(vec![Change::Job(name.to_string(), Some(log))])
    }
}
