//! Hints: what to do next after an error.

use cdm_core::domain::ReasonCode;
use cdm_http::api::operation::{self, OperationStatus};
use cdm_http::api::rollout::RolloutStatus;
use cdm_http::api::{OperationId, RolloutId};

use crate::error::{CliError, Problem, Subject};
use crate::invocation::{Invocation, Sent};
use crate::transport::{TransportError, TransportErrorKind};
use crate::work::{State, Work};

/// Returns what to do about an error, if something can be done. Commands are given as they would be typed for this
/// `invocation`.
pub fn for_error(error: &CliError, invocation: &Invocation) -> Option<String> {
    match error {
        CliError::Rejected(problem) => for_problem(problem, invocation),
        CliError::Transport(error) => Some(for_transport_error(error)),
        CliError::Redirected { target } => Some(match origin(target) {
            Some(origin) => format!("if you trust that server, set its address: --server {origin}"),
            None => {
                "set the address that serves requests without a redirect, with --server or CDM_SERVER".into()
            }
        }),
        CliError::Unconfirmed { site } => {
            let delete = invocation.command(&format!("site delete {site} --confirm {site}"));
            Some(format!("in a script: {delete}"))
        }
        CliError::NothingSelected => Some(format!(
            "select sites or an action, for example: {}; preview the plan with: {}",
            invocation.command("services rollout --promote --scope inactive --waves 1,10%,100%"),
            invocation.command("services rollout --promote --scope inactive --dry-run")
        )),
        CliError::WaitTimedOut { subject } => Some(format!(
            "resume the wait with: {}; wait longer with --timeout, or do not wait with --no-wait",
            subject.watch_command(invocation)
        )),
        CliError::Plaintext(_) => {
            Some("use an https:// address; or, on a trusted network, add --allow-plaintext".into())
        }
        CliError::InvalidResponse(_) => {
            Some(format!("is this the address of a CDM server? Check with: {}", invocation.command("doctor")))
        }
        CliError::Usage(_)
        | CliError::Interrupted { .. }
        | CliError::Failed(_)
        | CliError::Io { .. }
        | CliError::OutputClosed => None,
    }
}

fn for_transport_error(error: &TransportError) -> String {
    let server = &error.server;
    match error.kind {
        TransportErrorKind::Unreachable => format!(
            "is the server running at {server}? Set another address with --server or CDM_SERVER, or use \
             --local without a server"
        ),
        TransportErrorKind::UntrustedIssuer => {
            "to trust the authority, pass its certificate with --cacert FILE \
             (CDM_CACERT), or add it to the file that SSL_CERT_FILE names"
                .into()
        }
        TransportErrorKind::WrongName => {
            "use the name in the certificate, with --server or CDM_SERVER".into()
        }
        TransportErrorKind::Expired => "renew the certificate, and check the clock of this machine".into(),
        TransportErrorKind::CaCertificate => {
            "issue a certificate with the server's name that is not marked as an authority's \
             (no `CA:TRUE`), and pass the authority's certificate with --cacert FILE (CDM_CACERT)"
                .into()
        }
        TransportErrorKind::NoTls => {
            let plain = server.replacen("https://", "http://", 1);
            format!("is this the port of the TLS listener? Without TLS, the address is: --server {plain}")
        }
        TransportErrorKind::Tls => {
            "check the server's certificate, and the proxies between this machine and the server".into()
        }
        TransportErrorKind::NotHttp => {
            let tls = server.replacen("http://", "https://", 1);
            format!("if this port uses TLS, use https: --server {tls}")
        }
    }
}

/// Returns scheme, host and port of an address.
fn origin(target: &str) -> Option<String> {
    let url = reqwest::Url::parse(target).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}

fn for_problem(problem: &Problem, invocation: &Invocation) -> Option<String> {
    let cdm = |words: &str| invocation.command(words);
    let watch =
        problem.operation.as_ref().map(|id| Subject::operation(id.as_str()).watch_command(invocation));
    let rollout = problem.rollout.as_ref().map(RolloutId::as_str);
    let watch_rollout = |id: &str| Subject::rollout(id).watch_command(invocation);
    Some(match problem.code.as_str() {
        "operation_in_flight" if problem.operation_status == Some(OperationStatus::Parked) => {
            let id = problem.operation.as_ref().map_or("ID", OperationId::as_str);
            let cdm = |verb: &str| cdm(&format!("op {verb} {id}"));
            format!(
                "the operation is parked; see why: {}; then {}, or {}",
                cdm("get"),
                cdm("retry"),
                cdm("cancel")
            )
        }
        "operation_in_flight" => match (watch, rollout) {
            (Some(watch), _) => format!("wait for it: {watch}"),
            (None, Some(id)) => format!("wait for it: {}", watch_rollout(id)),
            (None, None) => format!("see what is in progress: {}", cdm("op list")),
        },
        "rollout_in_flight" => match rollout {
            Some(id) => {
                let abort = cdm(&format!("rollout abort {id}"));
                format!("wait for it: {}, or abort it: {abort}", watch_rollout(id))
            }
            None => format!("find it: {}; then wait for it, or abort it", cdm("rollout list")),
        },
        "unauthorized" => match invocation.token {
            Sent::No => "no token was sent: set CDM_TOKEN, or pass a file with --token-file. The first \
             start of cdm-server printed an administrator's token; --local needs no token"
                .into(),
            Sent::Yes => {
                "the token that was sent is invalid, revoked or expired: check CDM_TOKEN or --token-file"
                    .into()
            }
        },
        // Without the options of this invocation: its token would be rejected again.
        "forbidden" => {
            "your role does not permit this; an administrator can create a token with another role: \
             cdm token create"
                .into()
        }
        "not_found" => format!(
            "check the id: {}, {}; a terminated site is removed, but its operations remain: {}",
            cdm("site list"),
            cdm("op list"),
            cdm("op list --site ID")
        ),
        "site_exists" => format!("use another id, or see the existing site: {}", cdm("site get ID")),
        "hostname_taken" => "use another hostname, or delete the site that has it".into(),
        "illegal_transition" => {
            format!(
                "check the current state: {}, {} or {}",
                cdm("site get ID"),
                cdm("op get ID"),
                cdm("rollout get ID")
            )
        }
        "digest_changed" => match &problem.running {
            Some(running) => format!(
                "to continue on the running digest: {}; to stop: {}",
                cdm(&format!("rollout resume ID --accept-digest {running}")),
                cdm("rollout abort ID")
            ),
            None => {
                format!(
                    "deploy the rollout's digest again, or abort the rollout: {}",
                    cdm("rollout abort ID")
                )
            }
        },
        "bad_digest" => format!(
            "see its verdict: {}; deploy another digest, or repeat the command with --force",
            cdm("services history blue")
        ),
        "unknown_sites" => format!("list the sites: {}", cdm("site list --all")),
        "empty_plan" => format!(
            "see where the sites are: {}; preview another scope: {}",
            cdm("services show"),
            cdm("services rollout --promote --scope all --dry-run")
        ),
        "no_healthy_digest" => format!(
            "see which digests ran: {}; mark one healthy: {}, or deploy another",
            cdm("services history blue"),
            cdm("services mark DIGEST healthy --reason …")
        ),
        "frozen" => format!("see what is frozen, and until when: {}", cdm("freeze list")),
        "plan_changed" => format!("create a new plan: {}", cdm("services rollout … --dry-run")),
        "idempotency_key_reused" => "use a new --idempotency-key for each request".into(),
        "backend_denied" => {
            format!(
                "grant the server the permission that the message names, then retry; check with: {}",
                cdm("doctor")
            )
        }
        "unavailable" => format!("retry in a moment; see which backend is unavailable: {}", cdm("doctor")),
        "storage_full" => {
            format!(
                "free space on the disk of the server's data directory, then retry; check with: {}",
                cdm("doctor")
            )
        }
        "contended" | "throttled" => "retry in a moment".into(),
        "rate_limited" => "retry later, or wait longer: --timeout 10m".into(),
        "outcome_unknown" | "timed_out" => format!(
            "the request may have been accepted: repeat it with the same --idempotency-key, or check first: {}",
            cdm("op list")
        ),
        // The error already lists what is invalid, field by field.
        "invalid" => return None,
        code => clears(code)?.to_owned(),
    })
}

/// Returns what clears a reason code of an operation or rollout.
pub fn clears(code: &str) -> Option<&'static str> {
    ReasonCode::ALL.into_iter().find(|known| known.as_str() == code).map(ReasonCode::clears)
}

/// Returns what to do about work that has stopped without success, with the commands for it.
pub fn for_stopped_work(work: &impl Work, invocation: &Invocation) -> Option<String> {
    let (subject, state) = (work.subject(), work.state());
    let clears = state.reason().and_then(|reason| match &reason.code {
        operation::ReasonCode::Known(code) => Some(code.clears()),
        operation::ReasonCode::Other(_) => None,
    });
    let (noun, id) = (subject.kind.command(), &subject.id);
    let cdm = |verb: &str| invocation.command(&format!("{noun} {verb} {id}"));
    let commands = match state {
        State::Operation(operation) => match operation.status {
            OperationStatus::Parked => Some(format!("{}, or {}", cdm("retry"), cdm("cancel"))),
            OperationStatus::Failed => Some(format!("{}, or {}", cdm("get"), cdm("retry"))),
            OperationStatus::Queued
            | OperationStatus::Running
            | OperationStatus::Waiting
            | OperationStatus::Succeeded
            | OperationStatus::Cancelled
            | OperationStatus::Other(_) => None,
        },
        State::Rollout(rollout) => match rollout.status {
            // The rollout waits until a user accepts the running digest.
            RolloutStatus::Waiting => {
                Some(format!("{} --accept-digest DIGEST, or {}", cdm("resume"), cdm("abort")))
            }
            RolloutStatus::Halted | RolloutStatus::Paused => {
                Some(format!("{}, or {}", cdm("resume"), cdm("abort")))
            }
            RolloutStatus::Failed | RolloutStatus::Aborted | RolloutStatus::Succeeded => {
                let members = invocation.command(&format!("op list --rollout {id}"));
                Some(format!(
                    "list its sites: {members}; retry the sites that were not moved: {}",
                    cdm("retry")
                ))
            }
            RolloutStatus::Running | RolloutStatus::Other(_) => None,
        },
    };
    match (clears, commands) {
        (Some(clears), Some(commands)) => Some(format!("{clears}; {commands}")),
        (Some(clears), None) => Some(clears.to_owned()),
        (None, commands) => commands,
    }
}
