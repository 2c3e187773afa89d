//! Why something waits or is parked: never silently, always with what clears it.

use std::fmt;

use super::Timestamp;

/// A stable code for each reason. Programs match on the word, people read what clears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonCode {
    /// Every attempt of a step was used up, also by workers that were lost in it.
    AttemptsExhausted,
    /// The colour is held by something that excludes this.
    ServiceLocked,
    /// The caches could not be flushed.
    CacheFlushFailed,
    /// A step took longer than its deadline.
    DeadlineExceeded,
    /// The target runs another digest than the rollout's.
    DigestChanged,
    /// A backend refused for lack of permission.
    Denied,
    /// A wave is over, and the next one waits for its time.
    Baking,
    /// The failure budget of a wave is used up.
    BudgetExceeded,
    /// A thing of that name belongs to someone else.
    Foreign,
    /// A deploy is under way that this waits for.
    Deploying,
    /// The image does not get ready and nothing earlier can be put back.
    ImageNotReady,
    /// A freeze stops moves.
    Frozen,
    /// The gate spoke against the site where it was moved, or was to be.
    GateFailed,
    /// Whether a site works where it was moved could not be found out.
    GateInconclusive,
    /// A job failed.
    JobFailed,
    /// A job runs.
    JobRunning,
    /// The cluster did not move the site's route.
    MoveFailed,
    /// Asked to pause.
    Paused,
    /// A backend is away, or an earlier attempt's outcome is unknown; it is tried again.
    Retrying,
    /// The pods of the service are not all of the wanted digest and available.
    ServiceNotReady,
    /// Another operation was at work on the site until the end of its window.
    SiteBusy,
    /// The site was gone when its turn came.
    SiteGone,
    /// The site was not active when its turn came.
    SiteInactive,
    /// The theme is not there and may not be installed.
    ThemeMissing,
    /// `wp` refuses to run as root.
    RunsAsRoot,
    /// `wp` does not find WordPress in the image.
    WordPressNotFound,
    /// The parent theme of the site's theme is not there.
    ParentThemeMissing,
    /// The theme has no stylesheet.
    StylesheetMissing,
    /// The site's database does not accept the connection of a job.
    DatabaseRefused,
    /// WordPress refuses the administrator's email address.
    EmailRefused,
    /// An installation was cut short, and its database is not made anew.
    InstallIncomplete,
    /// A backend asks for fewer calls.
    Throttled,
    /// The image is being rolled out.
    RollingOut,
    /// A backend refused the request as it stands.
    Invalid,
}

impl ReasonCode {
    /// All of them.
    pub const ALL: [Self; 34] = [
        Self::AttemptsExhausted,
        Self::ServiceLocked,
        Self::CacheFlushFailed,
        Self::DeadlineExceeded,
        Self::DigestChanged,
        Self::Denied,
        Self::Baking,
        Self::BudgetExceeded,
        Self::Foreign,
        Self::Deploying,
        Self::ImageNotReady,
        Self::Frozen,
        Self::GateFailed,
        Self::GateInconclusive,
        Self::JobFailed,
        Self::JobRunning,
        Self::MoveFailed,
        Self::Paused,
        Self::Retrying,
        Self::ServiceNotReady,
        Self::SiteBusy,
        Self::SiteGone,
        Self::SiteInactive,
        Self::ThemeMissing,
        Self::RunsAsRoot,
        Self::WordPressNotFound,
        Self::ParentThemeMissing,
        Self::StylesheetMissing,
        Self::DatabaseRefused,
        Self::EmailRefused,
        Self::InstallIncomplete,
        Self::Throttled,
        Self::RollingOut,
        Self::Invalid,
    ];

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::ServiceLocked => "colour_held",
            Self::CacheFlushFailed => "cache_flush_failed",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::DigestChanged => "digest_changed",
            Self::Denied => "denied",
            Self::Baking => "baking",
            Self::BudgetExceeded => "budget_exceeded",
            Self::Foreign => "foreign",
            Self::Deploying => "deploying",
            Self::ImageNotReady => "image_not_ready",
            Self::Frozen => "frozen",
            Self::GateFailed => "gate_failed",
            Self::GateInconclusive => "gate_inconclusive",
            Self::JobFailed => "job_failed",
            Self::JobRunning => "job_running",
            Self::MoveFailed => "move_failed",
            Self::Paused => "paused",
            Self::Retrying => "retrying",
            Self::ServiceNotReady => "service_not_ready",
            Self::SiteBusy => "site_busy",
            Self::SiteGone => "site_gone",
            Self::SiteInactive => "site_inactive",
            Self::ThemeMissing => "theme_missing",
            Self::RunsAsRoot => "runs_as_root",
            Self::WordPressNotFound => "wordpress_not_found",
            Self::ParentThemeMissing => "parent_theme_missing",
            Self::StylesheetMissing => "stylesheet_missing",
            Self::DatabaseRefused => "database_refused",
            Self::EmailRefused => "email_refused",
            Self::InstallIncomplete => "install_incomplete",
            Self::Throttled => "throttled",
            Self::RollingOut => "rolling_out",
            Self::Invalid => "invalid",
        }
    }

    /// Whether it says that a job failed, so that a retry starts another one.
    pub const fn is_of_job(self) -> bool {
        matches!(
            self,
            Self::JobFailed
                | Self::CacheFlushFailed
                | Self::ThemeMissing
                | Self::RunsAsRoot
                | Self::WordPressNotFound
                | Self::ParentThemeMissing
                | Self::StylesheetMissing
                | Self::DatabaseRefused
                | Self::EmailRefused
                | Self::InstallIncomplete
        )
    }

    /// What clears it, as an instruction.
    pub const fn clears(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "find out what ends the workers, then retry the operation",
            Self::ServiceLocked => "clears when the other operation on this service rests",
            Self::CacheFlushFailed => "read the step's log, then retry the operation",
            Self::DeadlineExceeded => "see why it takes so long, then retry or cancel the operation",
            Self::DigestChanged => {
                "resume the rollout on the digest that runs, or deploy the rollout's digest again; or abort it"
            }
            Self::Denied => "grant the permission that the message names, then retry the operation",
            Self::Baking => "clears by itself when the wave has had its time",
            Self::BudgetExceeded => "look at the failed sites, then resume or abort the rollout",
            Self::Foreign => "remove or rename the other owner's thing, then retry the operation",
            Self::Deploying => "clears when the deploy rests",
            Self::ImageNotReady => {
                "deploy a working digest to this service; the deploy takes this operation's place"
            }
            Self::Frozen => "clears when the freeze ends or is removed",
            Self::GateFailed => "see what the site answers on that service, then retry the rollout",
            Self::GateInconclusive => "see why the site cannot be asked, then resume or abort the rollout",
            Self::JobFailed => "read the step's log, then retry the operation",
            Self::JobRunning => "clears when the job ends",
            Self::MoveFailed => "see whether the site has a route, then retry the rollout",
            Self::Paused => "resume the rollout",
            Self::Retrying => "clears by itself when the backend answers; see the message",
            Self::ServiceNotReady => {
                "clears when every pod of the service is available; or deploy a working digest, and resume the rollout on it"
            }
            Self::SiteBusy => "see what is at work on the site, then retry the rollout",
            Self::SiteGone => "nothing has to be done: the site is not there any more",
            Self::SiteInactive => "provision the site, then retry the rollout",
            Self::ThemeMissing => {
                "put the theme into the image or allow its installation, then retry the operation"
            }
            Self::RunsAsRoot => {
                "run the job as another user: `runAsUser` in the Deployment, or allow root (`wp.allow_root`); then retry the operation"
            }
            Self::WordPressNotFound => {
                "name the directory of WordPress (`wp.path`), or give the image a working directory that has it; then retry the operation"
            }
            Self::ParentThemeMissing => {
                "put the parent theme that the message names into the image, then retry the operation"
            }
            Self::StylesheetMissing => {
                "put the whole theme, with its `style.css`, into the image, then retry the operation"
            }
            Self::DatabaseRefused => {
                "see that the database server answers the image and accepts the site's credentials, then retry the operation"
            }
            Self::EmailRefused => {
                "set another `site.admin_email`, terminate the site and create it again: its stored address stays"
            }
            Self::InstallIncomplete => {
                "read the step's log; restore the site's database, or terminate the site and create it again"
            }
            Self::Throttled => "clears by itself",
            Self::RollingOut => "clears when the pods are ready",
            Self::Invalid => "correct what the message names, then retry or cancel the operation",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something waits or is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The stable code.
    pub code: ReasonCode,
    /// The particulars.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is given up, or tried again.
    pub until: Option<Timestamp>,
}
