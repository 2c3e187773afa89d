//! What jobs do in sites' databases. Each may be run again from the beginning.

use sqlx::{Connection, SqliteConnection};

use super::host::World;
use super::install::{self, Fresh, Installed};
use super::runner::Due;
use super::tenants::{read_options, site_error};
use crate::domain::{Color, Hostnames, SiteName, Theme, Uid};
use crate::ports::{ErrorKind, Job, JobFailure, JobKind, JobState, PortError};

/// Most bytes of a log.
const MOST_LOG: usize = 64 << 10;
/// What a job prints. Never a secret.
#[derive(Debug, Default)]
struct Log(String);

impl Log {
    fn line(&mut self, line: &str) {
        const CUT: &str = "…\n";
        if self.0.len() + line.len() + 1 + CUT.len() <= MOST_LOG {
            self.0.push_str(line);
            self.0.push('\n');
        } else if !self.0.ends_with(CUT) {
            self.0.push_str(CUT);
        }
    }
}

/// Why a job fails.
struct Failure {
    message: String,
    cause: JobFailure,
    /// The disk has no space: the job is no failure, it can be run again once there is.
    full: bool,
}

impl Failure {
    fn of(cause: JobFailure, message: impl Into<String>) -> Self {
        Self { message: message.into(), cause, full: false }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        let away = matches!(error.kind, ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Unavailable);
        let refused = away && error.port == "databases";
        let cause = if refused { JobFailure::DatabaseRefused } else { JobFailure::Other };
        Self { full: error.kind == ErrorKind::Full, ..Self::of(cause, error.message) }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        site_error(&error).into()
    }
}

/// Does what a job does, and says what became of it; `None` where the disk has no space for it now.
pub(super) async fn run(world: &World, due: &Due) -> Option<Job> {
    let mut log = Log::default();
    let done = match &due.kind {
        JobKind::Install { uid, hostnames, title } => {
            install(world, due.service, *uid, hostnames, title, &mut log).await
        }
        JobKind::ActivateTheme { uid, theme } => activate(world, due.service, *uid, theme, &mut log).await,
        JobKind::FlushCaches { uids } => flush(world, due.service, uids, &mut log).await,
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

type Done = Result<Vec<(Uid, String)>, Failure>;

async fn install(
    world: &World,
    service: Color,
    uid: Uid,
    hostnames: &Hostnames,
    title: &SiteName,
    log: &mut Log,
) -> Done {
    let cms = world.tenants.cms(uid).await?;
    let mut database = world.tenants.connect(uid).await?;
    let siteurl = format!("{}://{}", world.cluster.settings.site_scheme, hostnames.canonical());
    let site = Fresh { address: &siteurl, title: title.as_str(), user: &cms.username, email: &cms.email };
    let proof = async {
        let installed = install::install(&mut database, &site).await?;
        let options = read_options(&mut database).await?;
        let roles = install::roles(&mut database, &cms.username).await?;
        let complete = options.is_some() && install::is_complete(&mut database).await?;
        Ok::<_, sqlx::Error>((installed, options, roles, complete))
    }
    .await;
    close(database).await;
    world.cache(service).flush(uid);
    let (installed, options, roles, complete) = proof?;
    match installed {
        Installed::Now => log.line("Success: WordPress installed successfully."),
        Installed::Already => log.line("WordPress is already installed."),
        Installed::Unavailable => {
            let message =
                "One or more database tables are unavailable. The database may need to be repaired.";
            return Err(Failure::of(JobFailure::InstallIncomplete, message));
        }
    }
    let Some(options) = options else {
        return Err(Failure::of(JobFailure::Other, "the installation does not show"));
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
            let message = format!("`{}` is no administrator; its roles: `{roles}`", cms.username);
            Err(Failure::of(JobFailure::InstallIncomplete, message))
        }
        None => {
            let message = format!("Invalid user ID, email or login: '{}'", cms.username);
            Err(Failure::of(JobFailure::InstallIncomplete, message))
        }
    }
}

async fn activate(world: &World, service: Color, uid: Uid, theme: &Theme, log: &mut Log) -> Done {
    let view = world.cluster.running_image(service).await?;
    if !world.cluster.images().of(view).has_theme(theme) {
        let message = format!("The '{theme}' theme could not be found.");
        return Err(Failure::of(JobFailure::ThemeMissing, message));
    }
    let mut database = world.tenants.connect(uid).await?;
    let done = set_theme(&mut database, theme).await;
    close(database).await;
    world.cache(service).flush(uid);
    if !done? {
        return Err(Failure::of(JobFailure::Other, "WordPress is not installed."));
    }
    log.line(&format!("Success: Switched to '{theme}' theme."));
    Ok(Vec::new())
}

/// `false` where WordPress is not installed.
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

async fn flush(world: &World, service: Color, uids: &[Uid], log: &mut Log) -> Done {
    let mut failed = Vec::new();
    for uid in uids {
        // Flushed also where the database does not answer: nothing old is kept of such a site.
        world.cache(service).flush(*uid);
        match world.tenants.connect(*uid).await {
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
        tracing::debug!(%error, "a site's database was not closed in order");
    }
}
