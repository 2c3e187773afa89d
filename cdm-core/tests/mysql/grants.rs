//! The grants of a created user, and how a repeated call restores them.

use cdm_core::ports::{ErrorKind, Outcome, SiteDatabases};
use sqlx::Row;

use crate::{TestEnv, run};

/// Statements that WordPress and its plugins send.
const WORDPRESS: [&str; 12] = [
    "CREATE TABLE wp_posts (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, title TEXT)",
    "INSERT INTO wp_posts (title) VALUES ('𝒽ello')",
    "SELECT SQL_CALC_FOUND_ROWS id FROM wp_posts WHERE title LIKE '%llo'",
    "UPDATE wp_posts SET title = 'b'",
    "ALTER TABLE wp_posts ADD COLUMN slug VARCHAR(200), ADD KEY slug (slug)",
    "CREATE INDEX title ON wp_posts (title(20))",
    "LOCK TABLES wp_posts WRITE",
    "UNLOCK TABLES",
    "CREATE TEMPORARY TABLE scratch AS SELECT id FROM wp_posts",
    "DELETE FROM wp_posts",
    "TRUNCATE wp_posts",
    "DROP TABLE wp_posts",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_what_wordpress_does() {
    let Some(env) = TestEnv::shared() else { return };
    let (_, credentials) = env.site().await;
    let mut user = env.login(&credentials).await.expect("the user");
    for statement in WORDPRESS {
        run(&mut user, statement).await.expect(statement);
    }
    let row = sqlx::query("SELECT @@character_set_database").fetch_one(&mut user).await.expect("a row");
    assert_eq!(row.get::<String, _>(0), "utf8mb4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_no_access_to_other_databases() {
    let Some(env) = TestEnv::shared() else { return };
    let (_, credentials) = env.site().await;
    let (_, other_site) = env.site().await;
    let name = &credentials.dbname;
    // A `_` in a grant that is not escaped would match this database.
    let similar = name.replacen('_', "x", 1);
    let mut admin = env.admin().await;
    for database in [&similar, &other_site.dbname] {
        run(&mut admin, &format!("CREATE DATABASE IF NOT EXISTS {database}")).await.expect("a database");
        run(&mut admin, &format!("CREATE TABLE {database}.t (a INT)")).await.expect("a table");
    }
    let mut user = env.login(&credentials).await.expect("the user");
    for other in [&similar, &other_site.dbname, "cdm", "mysql"] {
        for statement in [
            format!("USE {other}"),
            format!("CREATE TABLE {other}.u (a INT)"),
            format!("SELECT * FROM {other}.t"),
            format!("DROP DATABASE {other}"),
        ] {
            run(&mut user, &statement).await.expect_err(&statement);
        }
    }
    for statement in [
        "CREATE DATABASE site_elsewhere".to_owned(),
        "CREATE USER another_user".to_owned(),
        format!("GRANT SELECT ON {name}.* TO root@localhost"),
        "SELECT 'a' INTO OUTFILE '/tmp/a-file-that-must-not-be'".to_owned(),
        "SET GLOBAL max_connections = 10".to_owned(),
        "SELECT * FROM mysql.user".to_owned(),
    ] {
        run(&mut user, &statement).await.expect_err(&statement);
    }
    let rows = sqlx::query("SHOW DATABASES").fetch_all(&mut user).await.expect("rows");
    let mut shown: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    shown.sort();
    assert_eq!(shown, ["information_schema", name.as_str()]);
    run(&mut admin, &format!("DROP DATABASE {similar}")).await.expect("dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_revokes_extra_grants_and_adds_missing_ones() {
    let Some(env) = TestEnv::shared() else { return };
    let (uid, credentials) = env.site().await;
    let name = &credentials.username;
    let mut user = env.login(&credentials).await.expect("the user");
    run(&mut user, "CREATE TABLE kept (a INT)").await.expect("a table");
    let mut admin = env.admin().await;
    let wanted = grants(&mut admin, name).await;
    assert_eq!(wanted.len(), 2, "{wanted:?}");
    run(&mut admin, "CREATE ROLE IF NOT EXISTS a_role_of_tests").await.expect("a role");
    for change in [
        format!("GRANT SELECT ON *.* TO {name}@'%'"),
        format!("GRANT SELECT ON `{name}`.* TO {name}@'%'"),
        format!("GRANT SELECT ON mysql.user TO {name}@'%'"),
        format!(r"GRANT SELECT ON `{}`.* TO {name}@'%' WITH GRANT OPTION", name.replace('_', r"\_")),
        format!(r"GRANT TRIGGER ON `{}`.* TO {name}@'%'", name.replace('_', r"\_")),
        format!("GRANT a_role_of_tests TO {name}@'%'"),
        format!("REVOKE ALL PRIVILEGES, GRANT OPTION FROM {name}@'%'"),
        format!(r"REVOKE DELETE ON `{}`.* FROM {name}@'%'", name.replace('_', r"\_")),
        format!("ALTER DATABASE {name} CHARACTER SET latin1"),
        format!("ALTER USER {name}@'%' IDENTIFIED BY 'another'"),
        format!("DROP USER {name}@'%'"),
        format!("CREATE USER {name}@'10.0.0.1'"),
    ] {
        run(&mut admin, &change).await.expect(&change);
        let again = env.databases.ensure(&env.suite.cx().call(), uid, &credentials).await;
        assert_eq!(again, Outcome::Applied(()), "{change}");
        assert_eq!(grants(&mut admin, name).await, wanted, "{change}");
        let count = sqlx::query("SELECT COUNT(*) FROM mysql.user WHERE User = ?").bind(name);
        assert_eq!(count.fetch_one(&mut admin).await.expect("a row").get::<i64, _>(0), 1, "{change}");
        let mut user = env.login(&credentials).await.expect(&change);
        run(&mut user, "SELECT a FROM kept").await.expect(&change);
        let charset_row =
            sqlx::query("SELECT @@character_set_database").fetch_one(&mut user).await.expect("a row");
        assert_eq!(charset_row.get::<String, _>(0), "utf8mb4", "{change}");
    }
}

/// Returns the texts of a user's grants, without the password hash.
async fn grants(admin: &mut sqlx::MySqlConnection, name: &str) -> Vec<String> {
    let show = sqlx::AssertSqlSafe(format!("SHOW GRANTS FOR {name}@'%'"));
    let rows = sqlx::raw_sql(show).fetch_all(admin).await.expect("grants");
    let line = |row: &sqlx::mysql::MySqlRow| row.get::<String, _>(0);
    rows.iter().map(|row| line(row).split(" IDENTIFIED").next().unwrap_or_default().to_owned()).collect()
}

/// Passwords that would end a quotation if they were not escaped.
pub(crate) const HOSTILE: [&str; 8] = [
    "it's",
    r"back\slash",
    r"ends with \",
    r"\' OR 1 = 1 -- ",
    "'; DROP USER root@localhost; -- ",
    "`\"%_;#/* */",
    "line\nline\t\u{1a}",
    "ümläut 𝒽 '\\''",
];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_passwords_are_set_unchanged() {
    let Some(env) = TestEnv::shared() else { return };
    assert_passwords_set(&env).await;
}

/// Asserts that each hostile password is set, and that no other password works.
pub(crate) async fn assert_passwords_set(env: &TestEnv) {
    let (uid, _) = env.site().await;
    for password in HOSTILE {
        let credentials = env.credentials(uid, password);
        let made = env.databases.ensure(&env.suite.cx().call(), uid, &credentials).await;
        assert_eq!(made, Outcome::Applied(()), "{password:?}");
        env.login(&credentials).await.expect(password);
        env.login(&env.credentials(uid, "a-password")).await.expect_err(password);
    }
    let nul = env.databases.ensure(&env.suite.cx().call(), uid, &env.credentials(uid, "a\0b")).await;
    let Outcome::NotApplied(error) = nul else { panic!("{nul:?}") };
    assert_eq!(error.kind, ErrorKind::Invalid);
    let foreign = env.credentials(env.suite.cx().uid(), "a-password");
    let foreign = env.databases.ensure(&env.suite.cx().call(), uid, &foreign).await;
    assert!(matches!(foreign, Outcome::NotApplied(error) if error.kind == ErrorKind::Invalid));
}
