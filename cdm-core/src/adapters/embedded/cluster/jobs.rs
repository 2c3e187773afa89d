//! What jobs do in sites' databases. Each may be run again from the beginning.

use sqlx::{Connection, SqliteConnection};

use super::host::World;
use super::runner::Due;
use super::tenants::{read_options, site_error};
use crate::domain::{Hostnames, Selector, SiteName, Theme, Uid};
use crate::ports::{ErrorKind, Job, JobKind, JobState, PortError};

/// Most bytes of a log.
const MOST_LOG: usize = 64 << 10;
/// The theme of a fresh installation.
const FIRST_THEME: &str = "default";

const OPTIONS: &str = "
CREATE TABLE IF NOT EXISTS options (option_name TEXT PRIMARY KEY, option_value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS users (user_login TEXT PRIMARY KEY, user_email TEXT NOT NULL) STRICT;
";

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
    theme_missing: bool,
    /// The disk has no space: the job is no failure, it can be run again once there is.
    full: bool,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), theme_missing: false, full: false }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self { full: error.kind == ErrorKind::Full, ..Self::new(error.message) }
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
        Err(Failure { message, theme_missing, full: false }) => {
            log.line(&format!("Error: {message}"));
            JobState::Failed { message, theme_missing }
        }
    };
    Some(Job { state, log: log.0 })
}

type Done = Result<Vec<(Uid, String)>, Failure>;

async fn install(
    world: &World,
    service: Selector,
    uid: Uid,
    hostnames: &Hostnames,
    title: &SiteName,
    log: &mut Log,
) -> Done {
    let cms = world.tenants.cms(uid).await?;
    let mut database = world.tenants.connect(uid).await?;
    let siteurl = format!("{}://{}", world.cluster.settings.site_scheme, hostnames.canonical());
    let done = async {
        if read_options(&mut database).await?.is_some() {
            log.line("WordPress is already installed.");
            return Ok(());
        }
        let mut tx = database.begin().await?;
        sqlx::raw_sql(OPTIONS).execute(&mut *tx).await?;
        for (name, value) in [
            ("siteurl", siteurl.as_str()),
            ("home", siteurl.as_str()),
            ("blogname", title.as_str()),
            ("admin_email", cms.email.as_str()),
            ("stylesheet", FIRST_THEME),
        ] {
            sqlx::query(
                "INSERT INTO options (option_name, option_value) VALUES (?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(name)
            .bind(value)
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query("INSERT INTO users (user_login, user_email) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(&cms.username)
            .bind(&cms.email)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        log.line("Success: WordPress installed successfully.");
        Ok::<_, sqlx::Error>(())
    }
    .await;
    let proof = match done {
        Ok(()) => read_options(&mut database).await,
        Err(error) => Err(error),
    };
    close(database).await;
    world.cache(service).flush(uid);
    let Some(options) = proof? else {
        return Err(Failure::new("the installation does not show"));
    };
    log.line(&format!("siteurl: {}", options.siteurl));
    Ok(Vec::new())
}

async fn activate(world: &World, service: Selector, uid: Uid, theme: &Theme, log: &mut Log) -> Done {
    let view = world.cluster.running_image(service).await?;
    if !world.cluster.images().of(view).has_theme(theme) {
        let message = format!("The '{theme}' theme could not be found.");
        return Err(Failure { theme_missing: true, ..Failure::new(message) });
    }
    let mut database = world.tenants.connect(uid).await?;
    let done = set_theme(&mut database, theme).await;
    close(database).await;
    world.cache(service).flush(uid);
    if !done? {
        return Err(Failure::new("WordPress is not installed."));
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

async fn flush(world: &World, service: Selector, uids: &[Uid], log: &mut Log) -> Done {
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
