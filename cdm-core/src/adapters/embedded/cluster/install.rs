//! `wp core install` in the database of a site, statement by statement, as the real command does it.
//!
//! The statements run without a transaction, so a killed process leaves the same partial installation as a killed pod.

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::tenants::read_options;

const FIRST_THEME: &str = "default";

/// The tables of WordPress 6.1 in the order of their creation, with the columns that the local cluster needs.
const TABLES: [(&str, &str); 12] = [
    ("users", "user_login TEXT PRIMARY KEY, user_email TEXT NOT NULL"),
    ("usermeta", "user_login TEXT NOT NULL, meta_key TEXT NOT NULL, meta_value TEXT NOT NULL"),
    ("termmeta", "meta_id INTEGER PRIMARY KEY"),
    ("terms", "term_id INTEGER PRIMARY KEY, name TEXT NOT NULL"),
    ("term_taxonomy", "term_taxonomy_id INTEGER PRIMARY KEY"),
    ("term_relationships", "object_id INTEGER PRIMARY KEY"),
    ("commentmeta", "meta_id INTEGER PRIMARY KEY"),
    ("comments", "comment_ID INTEGER PRIMARY KEY"),
    ("links", "link_id INTEGER PRIMARY KEY"),
    ("options", "option_name TEXT PRIMARY KEY, option_value TEXT NOT NULL"),
    ("postmeta", "meta_id INTEGER PRIMARY KEY"),
    ("posts", "ID INTEGER PRIMARY KEY, post_title TEXT NOT NULL"),
];
/// The key of a user's roles in `usermeta`.
const ROLES: &str = "wp_capabilities";

/// The values of a new installation.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewInstallation<'a> {
    pub(super) address: &'a str,
    pub(super) title: &'a str,
    pub(super) user: &'a str,
    pub(super) email: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InstallOutcome {
    /// The database was empty, and everything was written.
    Installed,
    /// The database has an installation; nothing was written.
    AlreadyInstalled,
    /// The database has tables but no site address; nothing was written.
    Partial,
}

/// One statement with its values.
struct Write<'a> {
    statement: String,
    values: Vec<&'a str>,
}

impl<'a> NewInstallation<'a> {
    fn writes(&self) -> Vec<Write<'a>> {
        let table = |(name, columns): &(&str, &str)| Write {
            statement: format!("CREATE TABLE {name} ({columns}) STRICT"),
            values: Vec::new(),
        };
        let rows = |statement: &str, values: Vec<&'a str>| Write { statement: statement.to_owned(), values };
        let options = "INSERT INTO options (option_name, option_value) VALUES ('siteurl', ?1), ('home', ?1), \
                       ('stylesheet', ?2), ('blogname', 'My Site')";
        let title = "INSERT OR REPLACE INTO options (option_name, option_value) VALUES ('blogname', ?), \
                     ('admin_email', ?)";
        let mut writes: Vec<Write<'a>> = TABLES.iter().map(table).collect();
        writes.extend([
            rows(options, vec![self.address, FIRST_THEME]),
            rows("INSERT INTO options VALUES ('wp_user_roles', 'administrator')", Vec::new()),
            rows(title, vec![self.title, self.email]),
            rows("INSERT INTO users (user_login, user_email) VALUES (?, ?)", vec![self.user, self.email]),
            rows("INSERT INTO usermeta VALUES (?, ?, 'administrator')", vec![self.user, ROLES]),
            rows("INSERT INTO terms (name) VALUES ('Uncategorized')", Vec::new()),
            rows("INSERT INTO posts (post_title) VALUES ('Hello world!')", Vec::new()),
            rows("INSERT INTO options VALUES ('cdm_installed', 'complete')", Vec::new()),
        ]);
        writes
    }
}

/// Installs WordPress if the database is empty.
pub(super) async fn install(
    database: &mut SqliteConnection,
    site: &NewInstallation<'_>,
) -> Result<InstallOutcome, sqlx::Error> {
    if read_options(database).await?.is_some() {
        return Ok(InstallOutcome::AlreadyInstalled);
    }
    if has_tables(database).await? {
        return Ok(InstallOutcome::Partial);
    }
    for Write { statement, values } in site.writes() {
        let query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        values.into_iter().fold(query, |query, value| query.bind(value)).execute(&mut *database).await?;
    }
    Ok(InstallOutcome::Installed)
}

/// Returns the roles of a user; `None` if the user does not exist. Installations of older versions, which were written
/// in one transaction, have no roles and one user, an administrator.
pub(super) async fn roles(
    database: &mut SqliteConnection,
    user: &str,
) -> Result<Option<String>, sqlx::Error> {
    let known = sqlx::query("SELECT 1 FROM users WHERE user_login = ?").bind(user);
    if !is_table(database, "users").await? || known.fetch_optional(&mut *database).await?.is_none() {
        return Ok(None);
    }
    if !is_table(database, "usermeta").await? {
        return Ok(Some("administrator".to_owned()));
    }
    let roles = sqlx::query("SELECT meta_value FROM usermeta WHERE user_login = ? AND meta_key = ?");
    let row = roles.bind(user).bind(ROLES).fetch_optional(database).await?;
    row.map_or(Ok(Some(String::new())), |row| row.try_get(0).map(Some))
}

/// Returns whether an installation is complete. Installations of older versions, which were written in one transaction,
/// have no roles and are complete.
pub(super) async fn is_complete(database: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if !is_table(database, "usermeta").await? {
        return is_table(database, "users").await;
    }
    let marker = sqlx::query("SELECT 1 FROM options WHERE option_name = 'cdm_installed'");
    Ok(marker.fetch_optional(database).await?.is_some())
}

async fn has_tables(database: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    for (name, _) in TABLES {
        if is_table(database, name).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn is_table(database: &mut SqliteConnection, name: &str) -> Result<bool, sqlx::Error> {
    let query = sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?").bind(name);
    Ok(query.fetch_optional(database).await?.is_some())
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;

    const SITE: NewInstallation<'_> = NewInstallation {
        address: "https://rrr.example.com",
        title: "It's \"quoted\"",
        user: "admin",
        email: "admin@example.com",
    };

    async fn empty() -> SqliteConnection {
        SqliteConnection::connect("sqlite::memory:").await.expect("a database in memory")
    }

    #[tokio::test]
    async fn an_installation_is_complete_and_not_repeated() {
        let mut database = empty().await;
        assert_eq!(install(&mut database, &SITE).await.expect("written"), InstallOutcome::Installed);
        assert_eq!(install(&mut database, &SITE).await.expect("read"), InstallOutcome::AlreadyInstalled);
        assert_eq!(roles(&mut database, "admin").await.expect("read").as_deref(), Some("administrator"));
        assert_eq!(roles(&mut database, "other").await.expect("read"), None);
        assert!(is_complete(&mut database).await.expect("read"));
        let options = read_options(&mut database).await.expect("read").expect("options");
        assert_eq!((options.siteurl.as_str(), options.title.as_str()), (SITE.address, SITE.title));
    }

    #[tokio::test]
    async fn an_interrupted_installation_is_not_continued() {
        let all = SITE.writes().len();
        for cut in 1..all {
            let mut database = empty().await;
            for Write { statement, values } in SITE.writes().into_iter().take(cut) {
                let query = sqlx::query(AssertSqlSafe(statement));
                let query = values.into_iter().fold(query, |query, value| query.bind(value));
                query.execute(&mut database).await.expect("written");
            }
            let found = install(&mut database, &SITE).await.expect("read");
            let expected =
                if cut <= TABLES.len() { InstallOutcome::Partial } else { InstallOutcome::AlreadyInstalled };
            assert_eq!(found, expected, "after {cut}");
            let usable =
                roles(&mut database, "admin").await.expect("read").as_deref() == Some("administrator");
            assert_eq!(usable, cut >= TABLES.len() + 5, "after {cut}");
            let complete = cut > TABLES.len() && is_complete(&mut database).await.expect("read");
            assert!(!complete, "after {cut}");
        }
    }
}
