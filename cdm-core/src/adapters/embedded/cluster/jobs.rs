//! What jobs do in the databases of sites. Every job may be run again from its beginning.

use sqlx::{Connection, SqliteConnection};

use super::host::HostContext;
use super::install::{self, InstallOutcome, NewInstallation};
use super::runner::PendingJob;
use super::tenants::{read_options, site_error};
use crate::domain::{Color, Hostnames, SiteName, Theme, Uid};
use crate::ports::{ErrorKind, Job, JobFailure, JobKind, JobState, PortError};

/// Maximum size of a log, in bytes.
const MAX_LOG: usize = 64 << 10;
/// The output of a job, which never contains a secret.
#[derive(Debug, Default)]
struct Log(String);

impl Log {
    fn line(&mut self, line: &str) {
        const TRUNCATED: &str = "…\n";
        if self.0.len() + line.len() + 1 + TRUNCATED.len() <= MAX_LOG {
            self.0.push_str(line);
            self.0.push('\n');
        } else if !self.0.ends_with(TRUNCATED) {
            self.0.push_str(TRUNCATED);
        }
    }
}

/// Why a job failed.
struct Failure {
    message: String,
    cause: JobFailure,
    /// Whether the disk is full. The job then did not fail, and runs again once there is free space.
    full: bool,
}

impl Failure {
    fn of(cause: JobFailure, message: impl Into<String>) -> Self {
        Self { message: message.into(), cause, full: false }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        let unavailable =
            matches!(error.kind, ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Unavailable);
        let refused = unavailable && error.port == "databases";
        let cause = if refused { JobFailure::DatabaseRefused } else { JobFailure::Other };
        Self { full: error.kind == ErrorKind::Full, ..Self::of(cause, error.message) }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        site_error(&error).into()
    }
}

/// Runs a job and returns its result; `None` if the disk is full.
pub(super) async fn run(context: &HostContext, pending: &PendingJob) -> Option<Job> {
    let mut log = Log::default();
    let done = match &pending.kind {
        JobKind::Install { uid, hostnames, title } => {
            install(context, pending.service, *uid, hostnames, title, &mut log).await
        }
        JobKind::ActivateTheme { uid, theme } => {
            activate(context, pending.service, *uid, theme, &mut log).await
        }
        JobKind::FlushCaches { uids } => flush(context, pending.service, uids, &mut log).await,
    };
    let state = match done {
        Ok(failed) => JobState::Succeeded { failed },
        Err(Failure { full: true, .. }) => return None,
        Err(Failure { message, cause, full: false }) => {
            log.line(&format!("Error: {message}"));
            JobState::Failed { message, cause }
        }
    };
    Some(Job { state, log: log.0 })
}

type JobResult = Result<Vec<(Uid, String)>, Failure>;

async fn install(
    context: &HostContext,
    service: Color,
    uid: Uid,
    hostnames: &Hostnames,
    title: &SiteName,
    log: &mut Log,
) -> JobResult {
    let cms = context.tenants.cms(uid).await?;
    let mut database = context.tenants.connect(uid).await?;
    let siteurl = format!("{}://{}", context.cluster.settings.site_scheme, hostnames.canonical());
    let site =
        NewInstallation { address: &siteurl, title: title.as_str(), user: &cms.username, email: &cms.email };
    let result = async {
        let installed = install::install(&mut database, &site).await?;
        let options = read_options(&mut database).await?;
        let roles = install::roles(&mut database, &cms.username).await?;
        let complete = options.is_some() && install::is_complete(&mut database).await?;
        Ok::<_, sqlx::Error>((installed, options, roles, complete))
    }
    .await;
    close(database).await;
    context.cache(service).flush(uid);
    let (installed, options, roles, complete) = result?;
    match installed {
        InstallOutcome::Installed => log.line("Success: WordPress installed successfully."),
        InstallOutcome::AlreadyInstalled => log.line("WordPress is already installed."),
        InstallOutcome::Partial => {
            let message =
                "One or more database tables are unavailable. The database may need to be repaired.";
            return Err(Failure::of(JobFailure::InstallIncomplete, message));
        }
    }
    let Some(options) = options else {
        return Err(Failure::of(JobFailure::Other, "WordPress is not installed after the installation"));
    };
    log.line(&format!("siteurl: {}", options.siteurl));
    match roles.as_deref() {
        Some("administrator") if !complete => {
            let message = "Could not get 'cdm_installed' option. Does it exist?";
            Err(Failure::of(JobFailure::InstallIncomplete, message))
        }
        Some("administrator") => {
            log.line("roles: administrator");
            Ok(Vec::new())
        }
        Some(roles) => {
            let message = format!("`{}` is not an administrator; its roles: `{roles}`", cms.username);
            Err(Failure::of(JobFailure::InstallIncomplete, message))
        }
        None => {
            let message = format!("Invalid user ID, email or login: '{}'", cms.username);
            Err(Failure::of(JobFailure::InstallIncomplete, message))
        }
    }
}

async fn activate(
    context: &HostContext,
    service: Color,
    uid: Uid,
    theme: &Theme,
    log: &mut Log,
) -> JobResult {
    let digest = context.cluster.running_image(service).await?;
    if !context.cluster.images().of(digest).has_theme(theme) {
        let message = format!("The '{theme}' theme could not be found.");
        return Err(Failure::of(JobFailure::ThemeMissing, message));
    }
    let mut database = context.tenants.connect(uid).await?;
    let done = set_theme(&mut database, theme).await;
    close(database).await;
    context.cache(service).flush(uid);
    if !done? {
        return Err(Failure::of(JobFailure::Other, "WordPress is not installed."));
    }
    log.line(&format!("Success: Switched to '{theme}' theme."));
    Ok(Vec::new())
}

/// Returns `false` if WordPress is not installed.
async fn set_theme(database: &mut SqliteConnection, theme: &Theme) -> Result<bool, sqlx::Error> {
    if read_options(database).await?.is_none() {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO options (option_name, option_value) VALUES ('stylesheet', ?)
         ON CONFLICT (option_name) DO UPDATE SET option_value = excluded.option_value",
    )
    .bind(theme.as_str())
    .execute(database)
    .await
    .map(|_| true)
}

async fn flush(context: &HostContext, service: Color, uids: &[Uid], log: &mut Log) -> JobResult {
    let mut failed = Vec::new();
    for uid in uids {
        // The cache is flushed also if the database is not available, so that it holds no outdated entry of this site.
        context.cache(service).flush(*uid);
        match context.tenants.connect(*uid).await {
            Ok(database) => {
                close(database).await;
                log.line(&format!("Success: The cache was flushed for {uid}."));
            }
            Err(error) => {
                log.line(&format!("Error: The cache was not flushed for {uid}: {}.", error.message));
                failed.push((*uid, error.message));
            }
        }
    }
    Ok(failed)
}

async fn close(database: SqliteConnection) {
    if let Err(error) = database.close().await {
        tracing::debug!(%error, "closing the database of a site failed");
    }
}
