//! What `wp core install` writes to a site's database, in order, and what the next run finds after an
//! interruption.
//!
//! WordPress writes one table or one group of rows at a time, without a transaction: see
//! `make_db_current_silent`, `populate_options`, `populate_roles` and `wp_install` in WordPress 6.1,
//! `wp-admin/includes/upgrade.php`. The marker at the end is written by the job's own file.

/// The writes of one installation so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    writes: usize,
}

/// Result of `wp core install` on a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallResult {
    /// Every write was made: `Success: WordPress installed successfully.`
    Installed,
    /// The process ended before its result was known.
    Interrupted,
    /// An address exists, so nothing was written: `WordPress is already installed.`, without an error.
    AlreadyInstalled,
    /// Tables exist without an address. The command ends with exit code 1, now and on every later run.
    TablesUnavailable,
}

impl Installation {
    /// The tables, in the order of their creation.
    pub const TABLES: [&str; 12] = [
        "users",
        "usermeta",
        "termmeta",
        "terms",
        "term_taxonomy",
        "term_relationships",
        "commentmeta",
        "comments",
        "links",
        "options",
        "postmeta",
        "posts",
    ];

    /// The groups of rows that follow the tables, in order.
    pub const ROWS: [&str; 7] =
        ["options", "roles", "title and address", "user", "administrator", "first content", "mark"];

    /// Number of writes of a complete installation.
    pub const WRITES: usize = Self::TABLES.len() + Self::ROWS.len();

    /// Error message of WordPress if tables exist without an address.
    pub const UNAVAILABLE: &str =
        "One or more database tables are unavailable. The database may need to be repaired.";

    /// Returns the name of a write; the first write is 0.
    pub fn write_name(write: usize) -> &'static str {
        let rows = Self::ROWS.iter().copied();
        Self::TABLES.iter().copied().chain(rows).nth(write).unwrap_or("nothing")
    }

    /// Runs `wp core install`. With `interrupt_after`, the process ends after that many writes.
    pub fn install(&mut self, interrupt_after: Option<usize>) -> InstallResult {
        if self.has_address() {
            return InstallResult::AlreadyInstalled;
        }
        if self.writes > 0 {
            return InstallResult::TablesUnavailable;
        }
        self.writes = interrupt_after.unwrap_or(Self::WRITES).min(Self::WRITES);
        // A process that ends after its last write has done its work, but its result is lost.
        if interrupt_after.is_some() { InstallResult::Interrupted } else { InstallResult::Installed }
    }

    /// Returns whether the options contain an address, which is all that `wp core is-installed` checks.
    pub const fn has_address(&self) -> bool {
        self.writes > Self::TABLES.len()
    }

    /// Returns what `wp user get <administrator> --field=roles` prints, or `None` if the user does not exist.
    pub const fn roles(&self) -> Option<&'static str> {
        match self.writes {
            writes if writes >= Self::TABLES.len() + 5 => Some("administrator"),
            writes if writes >= Self::TABLES.len() + 4 => Some(""),
            _ => None,
        }
    }

    /// Returns whether the installation is complete: the job's own file writes a marker after the last write of
    /// WordPress.
    pub const fn is_complete(&self) -> bool {
        self.writes == Self::WRITES
    }

    /// Returns the number of writes so far.
    pub const fn writes(&self) -> usize {
        self.writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_installation_is_never_resumed() {
        for interrupt_after in 0..Installation::WRITES {
            let mut database = Installation::default();
            assert_eq!(database.install(Some(interrupt_after)), InstallResult::Interrupted);
            let next = match interrupt_after {
                0 => InstallResult::Installed,
                1..=12 => InstallResult::TablesUnavailable,
                _ => InstallResult::AlreadyInstalled,
            };
            assert_eq!(database.install(None), next, "after {interrupt_after}");
            assert_eq!(database.is_complete(), interrupt_after == 0, "after {interrupt_after}");
        }
        let mut whole = Installation::default();
        assert_eq!(whole.install(None), InstallResult::Installed);
        assert_eq!((whole.install(None), whole.is_complete()), (InstallResult::AlreadyInstalled, true));
        assert_eq!(Installation::write_name(0), "users");
        assert_eq!(Installation::write_name(Installation::WRITES - 1), "mark");
    }
}
