//! Causes of a failed job, derived from the output of `wp`.

use crate::domain::ReasonCode;

/// The cause of a failed job.
///
/// ```
/// use cdm_core::domain::ReasonCode;
/// use cdm_core::ports::JobFailure;
///
/// let cause = JobFailure::of_output("Error: Stylesheet is missing.");
/// assert_eq!(cause, JobFailure::StylesheetMissing);
/// assert_eq!(cause.code(), Some(ReasonCode::StylesheetMissing));
/// assert_eq!(JobFailure::of_output("Killed"), JobFailure::Other);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobFailure {
    /// The output names none of the causes below.
    #[default]
    Other,
    /// `wp` refuses to run as root.
    RunsAsRoot,
    /// `wp` does not find WordPress in the image.
    WordPressNotFound,
    /// The theme is not in the image.
    ThemeMissing,
    /// The theme is in the image, but its parent theme is not.
    ParentThemeMissing,
    /// The theme has no stylesheet.
    StylesheetMissing,
    /// The database server does not respond, or rejects the site's credentials.
    DatabaseRefused,
    /// WordPress rejects the administrator's email address.
    EmailRefused,
    /// An installation was interrupted: tables exist without options, or an address exists without an administrator
    /// or without the mark of completion.
    InstallIncomplete,
    /// The command ended without an error before its work was done.
    EndedEarly,
}

impl JobFailure {
    /// Every cause, in declaration order.
    pub const ALL: [Self; 10] = [
        Self::Other,
        Self::RunsAsRoot,
        Self::WordPressNotFound,
        Self::ThemeMissing,
        Self::ParentThemeMissing,
        Self::StylesheetMissing,
        Self::DatabaseRefused,
        Self::EmailRefused,
        Self::InstallIncomplete,
        Self::EndedEarly,
    ];

    /// Returns the cause as it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::RunsAsRoot => "runs_as_root",
            Self::WordPressNotFound => "wordpress_not_found",
            Self::ThemeMissing => "theme_missing",
            Self::ParentThemeMissing => "parent_theme_missing",
            Self::StylesheetMissing => "stylesheet_missing",
            Self::DatabaseRefused => "database_refused",
            Self::EmailRefused => "email_refused",
            Self::InstallIncomplete => "install_incomplete",
            Self::EndedEarly => "ended_early",
        }
    }

    /// Parses a stored cause. Returns [`JobFailure::Other`] for a text of another version.
    pub fn parse(word: &str) -> Self {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word).unwrap_or_default()
    }

    /// Returns the cause that the output of a failed job names.
    ///
    /// The patterns are those of wp-cli 2.10 and WordPress 6.1 in English. An image whose `wp` prints another
    /// language gets [`JobFailure::Other`].
    pub fn of_output(text: &str) -> Self {
        const PATTERNS: [(&str, JobFailure); 12] = [
            ("running this as root", JobFailure::RunsAsRoot),
            ("does not seem to be a WordPress installation", JobFailure::WordPressNotFound),
            ("The parent theme is missing", JobFailure::ParentThemeMissing),
            ("Stylesheet is missing", JobFailure::StylesheetMissing),
            ("theme could not be found", JobFailure::ThemeMissing),
            ("email address is invalid", JobFailure::EmailRefused),
            ("Error establishing a database connection", JobFailure::DatabaseRefused),
            ("Cannot select database", JobFailure::DatabaseRefused),
            ("database tables are unavailable", JobFailure::InstallIncomplete),
            ("Invalid user ID, email or login", JobFailure::InstallIncomplete),
            ("Could not get 'cdm_installed' option", JobFailure::InstallIncomplete),
            (JobFailure::ENDED_EARLY, JobFailure::EndedEarly),
        ];
        let matched = PATTERNS.iter().find(|(pattern, _)| text.contains(pattern));
        matched.map_or(Self::Other, |(_, cause)| *cause)
    }

    /// The text that the prelude of `wp` prints if a command ends before its work is done.
    pub const ENDED_EARLY: &'static str = "the command ended before it did its work";

    /// Returns the reason code of an operation that is parked with this cause; `None` if the code of the step is more
    /// specific.
    pub const fn code(self) -> Option<ReasonCode> {
        match self {
            Self::Other | Self::EndedEarly => None,
            Self::RunsAsRoot => Some(ReasonCode::RunsAsRoot),
            Self::WordPressNotFound => Some(ReasonCode::WordPressNotFound),
            Self::ThemeMissing => Some(ReasonCode::ThemeMissing),
            Self::ParentThemeMissing => Some(ReasonCode::ParentThemeMissing),
            Self::StylesheetMissing => Some(ReasonCode::StylesheetMissing),
            Self::DatabaseRefused => Some(ReasonCode::DatabaseRefused),
            Self::EmailRefused => Some(ReasonCode::EmailRefused),
            Self::InstallIncomplete => Some(ReasonCode::InstallIncomplete),
        }
    }

    /// Returns whether another job can succeed without any change by a user.
    pub const fn may_pass(self) -> bool {
        match self {
            Self::Other | Self::DatabaseRefused | Self::EndedEarly => true,
            Self::RunsAsRoot
            | Self::WordPressNotFound
            | Self::ThemeMissing
            | Self::ParentThemeMissing
            | Self::StylesheetMissing
            | Self::EmailRefused
            | Self::InstallIncomplete => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_outputs_map_to_their_causes() {
        for (text, cause) in [
            (
                "Error: YIKES! It looks like you're running this as root. You probably meant to run this as the user",
                JobFailure::RunsAsRoot,
            ),
            (
                "Error: This does not seem to be a WordPress installation.\nThe used path is: /tmp/",
                JobFailure::WordPressNotFound,
            ),
            ("Error: The 'x' theme could not be found.", JobFailure::ThemeMissing),
            ("Error: The '2024' theme could not be found. Did you mean '2024'?", JobFailure::ThemeMissing),
            (
                "Error: The parent theme is missing. Please install the \"x\" parent theme.",
                JobFailure::ParentThemeMissing,
            ),
            ("Error: Stylesheet is missing.", JobFailure::StylesheetMissing),
            (
                "Error: Error establishing a database connection. This either means that",
                JobFailure::DatabaseRefused,
            ),
            ("Error: The 'ops@localhost' email address is invalid.", JobFailure::EmailRefused),
            (
                "Error: One or more database tables are unavailable. The database may need to be repaired.",
                JobFailure::InstallIncomplete,
            ),
            ("Error: Invalid user ID, email or login: 'admin'", JobFailure::InstallIncomplete),
            ("Killed", JobFailure::Other),
        ] {
            assert_eq!(JobFailure::of_output(text), cause, "{text}");
        }
    }

    #[test]
    fn every_stored_cause_can_be_parsed() {
        for cause in JobFailure::ALL {
            assert_eq!(JobFailure::parse(cause.as_str()), cause);
        }
        assert_eq!(JobFailure::parse("of another version"), JobFailure::Other);
    }
}
