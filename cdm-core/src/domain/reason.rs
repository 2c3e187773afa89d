//! Reasons for which an operation or rollout waits or is parked. Every reason states what clears it.

use std::fmt;

use super::Timestamp;

/// The stable code of a reason. Programs match on the code; users read the text of [`ReasonCode::clears`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonCode {
    /// All attempts of a step are used up, including those of workers that were lost during the step.
    AttemptsExhausted,
    /// Another operation or rollout holds a conflicting lock on the service.
    ServiceLocked,
    /// The caches could not be flushed.
    CacheFlushFailed,
    /// A step took longer than its deadline.
    DeadlineExceeded,
    /// The target runs another digest than the rollout's.
    DigestChanged,
    /// A backend denied the request for lack of permission.
    Denied,
    /// A wave is finished, and the rollout waits for the bake time before the next one.
    Baking,
    /// The failure budget of a wave is used up.
    BudgetExceeded,
    /// An object with the required name belongs to another owner.
    Foreign,
    /// The rollout waits for a deploy in progress.
    Deploying,
    /// The image does not become ready, and there is no earlier template to restore.
    ImageNotReady,
    /// A freeze stops moves.
    Frozen,
    /// The health gate rejected the site before or after its move.
    GateFailed,
    /// The health gate could not determine whether the site works after its move.
    GateInconclusive,
    /// A job ended with an error.
    JobFailed,
    /// A job is still running.
    JobRunning,
    /// The cluster did not move the site's route.
    MoveFailed,
    /// A user paused the rollout.
    Paused,
    /// A backend is unavailable, or the outcome of an earlier attempt is unknown. The step is retried.
    Retrying,
    /// Not every pod of the service is available and runs the requested digest.
    ServiceNotReady,
    /// Another operation was in progress on the site until the end of its window.
    SiteBusy,
    /// The site no longer existed when the rollout reached it.
    SiteGone,
    /// The site was not active when the rollout reached it.
    SiteInactive,
    /// The theme is not in the image, and installing it is not allowed.
    ThemeMissing,
    /// `wp` refuses to run as root.
    RunsAsRoot,
    /// `wp` does not find WordPress in the image.
    WordPressNotFound,
    /// The parent theme of the site's theme is not in the image.
    ParentThemeMissing,
    /// The theme has no stylesheet.
    StylesheetMissing,
    /// The site's database does not accept the connection of a job.
    DatabaseRefused,
    /// WordPress rejects the administrator's email address.
    EmailRefused,
    /// An installation was interrupted, and its database may not be renewed.
    InstallIncomplete,
    /// A backend throttles requests.
    Throttled,
    /// The pods of a new image are starting.
    RollingOut,
    /// A backend rejected the request as invalid.
    Invalid,
}

impl ReasonCode {
    /// Every code, in declaration order.
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

    /// Returns the code as the API and the stored records spell it.
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

    /// Returns whether the code means that a job failed, so that a retry starts a new job.
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

    /// Returns an instruction: what a user has to do, or what happens without the user, to clear the reason.
    pub const fn clears(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "find out why workers stop during this step, then retry the operation",
            Self::ServiceLocked => "clears when the other operation or rollout releases this service",
            Self::CacheFlushFailed => "read the step's log, then retry the operation",
            Self::DeadlineExceeded => {
                "find out why the step takes so long, then retry or cancel the operation"
            }
            Self::DigestChanged => {
                "resume the rollout with the digest that runs, deploy the rollout's digest again, or abort the rollout"
            }
            Self::Denied => "grant the permission that the message names, then retry the operation",
            Self::Baking => "clears by itself when the bake time of the wave is over",
            Self::BudgetExceeded => "check the failed sites, then resume or abort the rollout",
            Self::Foreign => "remove or rename the other owner's object, then retry the operation",
            Self::Deploying => "clears when the deploy ends",
            Self::ImageNotReady => {
                "deploy a working digest to this service; the deploy replaces this operation"
            }
            Self::Frozen => "clears when the freeze ends or is removed",
            Self::GateFailed => "check how the site responds on that service, then retry the rollout",
            Self::GateInconclusive => "check why the site cannot be probed, then resume or abort the rollout",
            Self::JobFailed => "read the step's log, then retry the operation",
            Self::JobRunning => "clears when the job ends",
            Self::MoveFailed => "check whether the site has a route, then retry the rollout",
            Self::Paused => "resume the rollout",
            Self::Retrying => "clears by itself when the backend responds; see the message",
            Self::ServiceNotReady => {
                "clears when every pod of the service is available; or deploy a working digest, then resume the rollout on that digest"
            }
            Self::SiteBusy => "check which operation is in progress on the site, then retry the rollout",
            Self::SiteGone => "no action is needed: the site no longer exists",
            Self::SiteInactive => "provision the site, then retry the rollout",
            Self::ThemeMissing => {
                "add the theme to the image or allow its installation, then retry the operation"
            }
            Self::RunsAsRoot => {
                "run the job as another user (`runAsUser` in the Deployment) or allow root (`wp.allow_root`), then retry the operation"
            }
            Self::WordPressNotFound => {
                "set the directory of WordPress (`wp.path`) or give the image a working directory that contains it, then retry the operation"
            }
            Self::ParentThemeMissing => {
                "add the parent theme that the message names to the image, then retry the operation"
            }
            Self::StylesheetMissing => {
                "add the complete theme with its `style.css` to the image, then retry the operation"
            }
            Self::DatabaseRefused => {
                "check that the database server is reachable from the image and accepts the site's credentials, then retry the operation"
            }
            Self::EmailRefused => {
                "set another `site.admin_email`, then terminate the site and create it again: the stored address does not change"
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

/// Why an operation or rollout waits or is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The stable code, for programs.
    pub code: ReasonCode,
    /// The particulars, for users.
    pub message: String,
    /// When the reason first applied.
    pub since: Timestamp,
    /// When the operation gives up or tries again; `None` if no time limit applies.
    pub until: Option<Timestamp>,
}
