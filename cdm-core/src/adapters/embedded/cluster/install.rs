//! `wp core install` in a site's database: table by table and group of rows by group of rows, as the real one does it.
//!
//! Without a transaction around it, so that a process which is killed leaves what a pod that is killed leaves.

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::tenants::read_options;

/// The theme of a fresh installation.
const FIRST_THEME: &str = "default";

/// The tables of WordPress 6.1, in the order in which they are made, and their columns here.
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
/// The key of a user's roles.
const ROLES: &str = "wp_capabilities";

/// What is installed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh<'a> {
    pub(super) address: &'a str,
    pub(super) title: &'a str,
    pub(super) user: &'a str,
    pub(super) email: &'a str,
}

/// What the command found, and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// There was nothing, and everything was written.
    Now,
    /// There was an address; nothing was written.
    Already,
    /// There were tables and no address; nothing was written.
    Unavailable,
}

/// One write: a statement with its values.
struct Write<'a> {
    statement: String,
    values: Vec<&'a str>,
}

impl<'a> Fresh<'a> {
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

/// Installs where there is nothing.
pub(super) async fn install(
    database: &mut SqliteConnection,
    site: &Fresh<'_>,
) -> Result<Installed, sqlx::Error> {
    if read_options(database).await?.is_some() {
        return Ok(Installed::Already);
    }
    if has_tables(database).await? {
        return Ok(Installed::Unavailable);
    }
    for Write { statement, values } in site.writes() {
        let query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        values.into_iter().fold(query, |query, value| query.bind(value)).execute(&mut *database).await?;
    }
    Ok(Installed::Now)
}

/// The roles of a user; `None` where there is no such user. What the versions before wrote, in one transaction, has no
/// roles, and one user.
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

/// Whether an installation came to its end. What the versions before wrote, in one transaction, has no roles and did.
pub(super) async fn is_complete(database: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if !is_table(database, "usermeta").await? {
        return is_table(database, "users").await;
    }
    let mark = sqlx::query("SELECT 1 FROM options WHERE option_name = 'cdm_installed'");
    Ok(mark.fetch_optional(database).await?.is_some())
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

    const SITE: Fresh<'_> = Fresh {
        address: "https://rrr.example.com",
        title: "It's \"quoted\"",
        user: "admin",
        email: "admin@example.com",
    };

    async fn empty() -> SqliteConnection {
        SqliteConnection::connect("sqlite::memory:").await.expect("a database in memory")
    }

    #[tokio::test]
    async fn an_installation_is_whole_and_is_not_repeated() {
        let mut database = empty().await;
        assert_eq!(install(&mut database, &SITE).await.expect("written"), Installed::Now);
        assert_eq!(install(&mut database, &SITE).await.expect("read"), Installed::Already);
        assert_eq!(roles(&mut database, "admin").await.expect("read").as_deref(), Some("administrator"));
        assert_eq!(roles(&mut database, "other").await.expect("read"), None);
        assert!(is_complete(&mut database).await.expect("read"));
        let options = read_options(&mut database).await.expect("read").expect("options");
        assert_eq!((options.siteurl.as_str(), options.title.as_str()), (SITE.address, SITE.title));
    }

    #[tokio::test]
    async fn an_installation_that_was_cut_short_is_not_taken_up_again() {
        let all = SITE.writes().len();
        for cut in 1..all {
            let mut database = empty().await;
            for Write { statement, values } in SITE.writes().into_iter().take(cut) {
                let query = sqlx::query(AssertSqlSafe(statement));
                let query = values.into_iter().fold(query, |query, value| query.bind(value));
                query.execute(&mut database).await.expect("written");
            }
            let found = install(&mut database, &SITE).await.expect("read");
            let expected = if cut <= TABLES.len() { Installed::Unavailable } else { Installed::Already };
            assert_eq!(found, expected, "after {cut}");
            let usable =
                roles(&mut database, "admin").await.expect("read").as_deref() == Some("administrator");
            assert_eq!(usable, cut >= TABLES.len() + 5, "after {cut}");
            let complete = cut > TABLES.len() && is_complete(&mut database).await.expect("read");
            assert!(!complete, "after {cut}");
        }
    }
}
