//! What `wp core install` writes into a site's database, in its order, and what the next one finds where it was cut.
//!
//! It writes table by table and group of rows by group of rows, without a transaction: `make_db_current_silent`,
//! `populate_options`, `populate_roles` and `wp_install` in WordPress 6.1, `wp-admin/includes/upgrade.php`; and the mark that
//! a job's own file leaves at the end.

/// How far an installation has come, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    writes: usize,
}

/// What `wp core install` does with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installing {
    /// It writes everything: `Success: WordPress installed successfully.`
    Whole,
    /// It is ended before the last write.
    Cut,
    /// It finds an address and does nothing: `WordPress is already installed.`, without an error.
    Already,
    /// It finds tables and no address, and ends with 1, now and every time after.
    Unavailable,
}

impl Installation {
    /// The tables, in the order in which they are made.
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

    /// The groups of rows that follow on the tables, in their order.
    pub const ROWS: [&str; 7] =
        ["options", "roles", "title and address", "user", "administrator", "first content", "mark"];

    /// How many writes a whole installation has.
    pub const WRITES: usize = Self::TABLES.len() + Self::ROWS.len();

    /// The last word of WordPress where tables are there and no address.
    pub const UNAVAILABLE: &str =
        "One or more database tables are unavailable. The database may need to be repaired.";

    /// The name of a write, the first being 0.
    pub fn write_name(write: usize) -> &'static str {
        let rows = Self::ROWS.iter().copied();
        Self::TABLES.iter().copied().chain(rows).nth(write).unwrap_or("nothing")
    }

    /// Runs `wp core install`, which is ended after so many writes, or not at all.
    pub fn install(&mut self, cut: Option<usize>) -> Installing {
        if self.has_address() {
            return Installing::Already;
        }
        if self.writes > 0 {
            return Installing::Unavailable;
        }
        self.writes = cut.unwrap_or(Self::WRITES).min(Self::WRITES);
        // Ended after its last write it has done its work, and nobody hears of it.
        if cut.is_some() { Installing::Cut } else { Installing::Whole }
    }

    /// Whether the options have an address: `wp core is-installed` asks no more.
    pub const fn has_address(&self) -> bool {
        self.writes > Self::TABLES.len()
    }

    /// Whether the title, and whatever else differs from site to site, is stored.
    pub const fn has_title(&self) -> bool {
        self.writes >= Self::TABLES.len() + 3
    }

    /// What `wp user get <administrator> --field=roles` prints; `None` where there is no such user.
    pub const fn roles(&self) -> Option<&'static str> {
        match self.writes {
            writes if writes >= Self::TABLES.len() + 5 => Some("administrator"),
            writes if writes >= Self::TABLES.len() + 4 => Some(""),
            _ => None,
        }
    }

    /// Whether it came to its end: the job's own file marks it after the last write of WordPress.
    pub const fn is_complete(&self) -> bool {
        self.writes == Self::WRITES
    }

    /// How many writes there were.
    pub const fn writes(&self) -> usize {
        self.writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_installation_is_never_taken_up_again() {
        for cut in 0..Installation::WRITES {
            let mut database = Installation::default();
            assert_eq!(database.install(Some(cut)), Installing::Cut);
            let next = match cut {
                0 => Installing::Whole,
                1..=12 => Installing::Unavailable,
                _ => Installing::Already,
            };
            assert_eq!(database.install(None), next, "after {cut}");
            assert_eq!(database.is_complete(), cut == 0, "after {cut}");
        }
        let mut whole = Installation::default();
        assert_eq!(whole.install(None), Installing::Whole);
        assert_eq!((whole.install(None), whole.is_complete()), (Installing::Already, true));
        assert_eq!(Installation::write_name(0), "users");
        assert_eq!(Installation::write_name(Installation::WRITES - 1), "mark");
    }
}
