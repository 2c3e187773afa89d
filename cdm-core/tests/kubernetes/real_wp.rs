//! The exact arguments and files of the jobs with a real wp-cli, PHP, WordPress and MariaDB: installations are killed
//! at random times.
//!
//! `CDM_TEST_WP` names the phar of wp-cli; `tests/parts` then installs Debian's PHP and WordPress if permitted, and
//! starts MariaDB. `CDM_SEED` selects other times.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdm_core::adapters::kubernetes::WpRoot;
use cdm_core::adapters::mysql::{MysqlDatabases, MysqlSettings};
use cdm_core::domain::{DatabaseName, SecretKind, SecretName, Uid};
use cdm_core::ports::{
    Credentials, Database, JobFailure, JobKind, JobState, Outcome, SecretStore, SiteDatabases, StoredSecret,
};
use cdm_testkit::ids::Rng;
use cdm_testkit::kubernetes::{Container, Containers, Exit};
use cdm_testkit::{backends, campaign};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use crate::env::{StaticSecrets, TestEnv};

/// Debian's WordPress.
const WORDPRESS: &str = "/usr/share/wordpress";
/// Number of installations that are killed.
const KILLS: usize = 20;

/// The configuration of an image under the tenant contract: the files of the job if present, else the site of the
/// host.
const CONFIGURATION: &str = r"<?php
function cdm_setting( $name, $default ) {
	$file = getenv( $name . '_FILE' );
	return $file ? trim( file_get_contents( $file ) ) : $default;
}
$uid = explode( '.', $_SERVER['HTTP_HOST'] ?? '' )[0];
define( 'DB_NAME', cdm_setting( 'WORDPRESS_DB_NAME', 'site_' . $uid ) );
define( 'DB_USER', cdm_setting( 'WORDPRESS_DB_USER', 'site_' . $uid ) );
define( 'DB_PASSWORD', cdm_setting( 'WORDPRESS_DB_PASSWORD', 'hush-canary-' . $uid ) );
define( 'DB_HOST', 'ADDRESS' );
define( 'DB_CHARSET', 'utf8mb4' );
define( 'DB_COLLATE', '' );
$table_prefix = 'wp_';
if ( file_exists( __DIR__ . '/quit' ) ) {
	exit;
}
require_once ABSPATH . 'wp-settings.php';
";

/// Runs the containers of jobs as processes. The next installation is killed after the configured time.
#[derive(Debug)]
struct Processes {
    phar: String,
    home: TempDir,
    kill: Mutex<Option<Duration>>,
    /// Durations of the installations.
    took: Mutex<Vec<Duration>>,
}

impl Processes {
    #[expect(clippy::disallowed_methods, reason = "an image has files")]
    fn new(phar: String, server: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let site = home.path().join("site");
        std::fs::create_dir_all(site.join("wp-content")).expect("a directory");
        for entry in std::fs::read_dir(WORDPRESS).expect("WordPress").flatten() {
            let name = entry.file_name();
            if name != "wp-config.php" && name != "wp-content" {
                symlink(entry.path(), site.join(name)).expect("a link");
            }
        }
        symlink(format!("{WORDPRESS}/wp-content/themes"), site.join("wp-content/themes")).expect("a link");
        std::fs::write(site.join("wp-config.php"), CONFIGURATION.replace("ADDRESS", server)).expect("a file");
        Self { phar, home, kill: Mutex::default(), took: Mutex::default() }
    }

    fn site(&self) -> String {
        self.home.path().join("site").display().to_string()
    }

    /// Returns a `wp` command with these arguments.
    fn wp(&self, arguments: &[String]) -> Command {
        let mut command = Command::new("php");
        command.arg(&self.phar).args(arguments).env_clear().current_dir(self.home.path());
        command.env("PATH", "/usr/bin:/bin").env("HOME", self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

#[expect(clippy::disallowed_methods, reason = "a process is killed at a given time")]
fn now() -> Instant {
    Instant::now()
}

impl Containers for Processes {
    #[expect(
        clippy::disallowed_methods,
        reason = "a container has files, and a process is killed at a given time"
    )]
    fn run(&self, container: &Container) -> Exit {
        let files = TempDir::new_in(self.home.path()).expect("a directory");
        let mounted = |text: &str| text.replace("/run/cdm", &files.path().display().to_string());
        let message = files.path().join("termination-log");
        for (path, text) in container.files.iter().filter(|(path, _)| path.starts_with("/run/cdm")) {
            let text = text.replace("/dev/termination-log", &message.display().to_string());
            std::fs::write(Path::new(&mounted(path)), text).expect("a file");
        }
        let arguments: Vec<String> =
            container.argv.iter().skip(1).map(|argument| mounted(argument)).collect();
        let mut command = self.wp(&arguments);
        command.envs(container.env.iter().map(|(name, value)| (name, mounted(value))));
        let installs = container.name == "install";
        let kill =
            if installs { self.kill.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        let begun = now();
        let mut child = command.spawn().expect("php");
        if let Some(after) = kill {
            std::thread::sleep(after);
            child.kill().expect("a kill");
        }
        let ended = child.wait_with_output().expect("an end");
        if installs && kill.is_none() {
            self.took.lock().unwrap_or_else(PoisonError::into_inner).push(begun.elapsed());
        }
        let log =
            format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        Exit {
            code: ended.status.code().unwrap_or(137),
            log,
            message: std::fs::read_to_string(&message).unwrap_or_default(),
            takes: Duration::from_secs(1),
        }
    }
}

/// Returns the credentials of a site's database, as its pipeline creates them.
async fn credentials(uid: Uid) -> Database {
    match StaticSecrets.read(&SecretName { uid, kind: SecretKind::Database }).await {
        Ok(Some(StoredSecret::Value(Credentials::Database(database)))) => database,
        other => panic!("no credentials of a database: {:?}", other.map(|_| ())),
    }
}

fn signs_in(processes: &Processes, uid: Uid) -> bool {
    let password = format!("hush-canary-{uid}");
    let arguments = [
        "user".to_owned(),
        "check-password".to_owned(),
        "admin".to_owned(),
        password,
        format!("--url=https://{uid}.example.com"),
        format!("--path={}", processes.site()),
        "--allow-root".to_owned(),
    ];
    processes.wp(&arguments).output().expect("php").status.success()
}

/// Returns the number of posts of the site: a complete installation has one.
fn first_posts(processes: &Processes, uid: Uid) -> usize {
    let arguments = [
        "post".to_owned(),
        "list".to_owned(),
        "--format=count".to_owned(),
        format!("--url=https://{uid}.example.com"),
        format!("--path={}", processes.site()),
        "--allow-root".to_owned(),
    ];
    let output = processes.wp(&arguments).output().expect("php");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a campaign reads its seed and prints its result"
)]
async fn installations_killed_at_random_times_end_with_an_administrator() {
    let Some(phar) = backends::optional("CDM_TEST_WP") else { return };
    let Some(url) = backends::address("CDM_TEST_MYSQL") else { return };
    if !Path::new(WORDPRESS).is_dir() {
        return backends::skip(&format!(
            "WordPress is not installed in {WORDPRESS}; on Debian: apt-get install wordpress php-cli php-mysql"
        ));
    }
    let seed = campaign::seed();
    let mut chance = Rng::new(seed);
    let server = url.rsplit('@').next().unwrap_or_default().trim_end_matches('/').to_owned();
    let processes = Arc::new(Processes::new(phar, &server));
    let env =
        TestEnv::with_containers_and_settings(Arc::clone(&processes) as Arc<dyn Containers>, |settings| {
            settings.wp_path = Some(processes.site());
            settings.wp_root = WpRoot::Allowed;
        })
        .await;
    let databases =
        MysqlDatabases::new(&MysqlSettings::new(SecretString::from(url)), Arc::new(env.suite.clock));
    let databases = databases.expect("settings");

    // One installation that is not killed, to measure its duration; followed by the later jobs.
    let complete = env.cx().uid();
    let made = databases.ensure(&env.cx().call(), complete, &credentials(complete).await).await;
    assert_eq!(made, Outcome::Applied(()));
    let done = JobState::Succeeded { failed: Vec::new() };
    let job = env.finish(&env.install(complete, "It's \"whole\" $(HOME)")).await;
    assert_eq!(job.state, done, "{}", job.log);
    let typical = processes.took.lock().unwrap_or_else(PoisonError::into_inner)[0];
    let flush = || env.job(JobKind::FlushCaches { uids: vec![complete] });
    let job = env.finish(&flush()).await;
    assert_eq!(job.state, done, "{}", job.log);
    std::fs::write(Path::new(&processes.site()).join("quit"), "").expect("a file");
    let job = env.finish(&flush()).await;
    let JobState::Succeeded { failed } = &job.state else { panic!("{job:?}") };
    assert_eq!(
        failed.first().map(|(_, why)| JobFailure::of_output(why)),
        Some(JobFailure::EndedEarly),
        "{job:?}"
    );
    std::fs::remove_file(Path::new(&processes.site()).join("quit")).expect("a file");
    let job = env.finish(&env.theme(complete, "nope")).await;
    assert!(matches!(job.state, JobState::Failed { cause: JobFailure::ThemeMissing, .. }), "{job:?}");

    let mut anew = 0;
    for kill in 0..KILLS {
        let uid = env.cx().uid();
        let credentials = credentials(uid).await;
        let made = databases.ensure(&env.cx().call(), uid, &credentials).await;
        assert_eq!(made, Outcome::Applied(()));
        let micros = u64::try_from(typical.as_micros()).expect("a short time");
        let after = Duration::from_micros(chance.below(micros));
        *processes.kill.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
        let mut ended = Vec::new();
        while ended.last() != Some(&done) {
            assert!(ended.len() < 4, "kill {kill} after {after:?}: {ended:?}");
            let job = env.finish(&env.install(uid, "A Title")).await;
            if let JobState::Failed { cause: JobFailure::InstallIncomplete, .. } = &job.state {
                let renewed = databases.renew(&env.cx().call(), uid, &credentials).await;
                assert_eq!(renewed, Outcome::Applied(()));
                anew += 1;
            }
            ended.push(job.state);
        }
        assert!(signs_in(&processes, uid), "kill {kill} after {after:?}: {ended:?}");
        assert_eq!(first_posts(&processes, uid), 1, "kill {kill} after {after:?}: {ended:?}");
        let name = DatabaseName::of(uid).to_string();
        assert!(credentials.dbname == name && !credentials.password.expose_secret().is_empty());
    }
    println!(
        "campaign install-kills: {KILLS} runs, 0 failed, seed {seed}, {anew} databases made anew; an installation took \
         {typical:.0?}"
    );
}
