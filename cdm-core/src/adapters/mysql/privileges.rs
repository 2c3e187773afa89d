//! The privileges of a site's user: everything that WordPress needs in the site's database, and nothing elsewhere.

use std::collections::BTreeSet;

use super::failure::Failure;
use super::session::Session;
use super::site::Site;

/// The privileges, with the names that `GRANT` accepts and the information schema returns.
const PRIVILEGES: [&str; 11] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "REFERENCES",
    "INDEX",
    "ALTER",
    "CREATE TEMPORARY TABLES",
    "LOCK TABLES",
];

/// The difference between the privileges of a user and the intended ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrivilegeDiff {
    /// The number of intended privileges that the user lacks.
    missing: usize,
    /// The number of other privileges that the user has, including roles.
    excess: usize,
}

impl PrivilegeDiff {
    pub(super) const fn is_exact(self) -> bool {
        self.missing == 0 && self.excess == 0
    }

    pub(super) const fn has_excess(self) -> bool {
        self.excess > 0
    }
}

/// Reads the privileges of the user.
pub(super) async fn read(session: &mut Session<'_>, site: Site<'_>) -> Result<PrivilegeDiff, Failure> {
    let account = session.quoting.account(site.name, site.host)?;
    let pattern = session.quoting.pattern(site.name);
    let global = "SELECT '' FROM information_schema.USER_PRIVILEGES \
                  WHERE GRANTEE = ? AND NOT (PRIVILEGE_TYPE = 'USAGE' AND IS_GRANTABLE = 'NO')";
    let global = session.rows(global, &[&account]).await?.len();
    let elsewhere = "SELECT '' FROM information_schema.SCHEMA_PRIVILEGES \
                     WHERE GRANTEE = ? AND (BINARY TABLE_SCHEMA <> ? OR IS_GRANTABLE <> 'NO')";
    let elsewhere = session.rows(elsewhere, &[&account, &pattern]).await?.len();
    let here = "SELECT CAST(PRIVILEGE_TYPE AS CHAR) FROM information_schema.SCHEMA_PRIVILEGES \
                WHERE GRANTEE = ? AND BINARY TABLE_SCHEMA = ?";
    let here: BTreeSet<String> = session.texts(here, &[&account, &pattern]).await?.into_iter().collect();
    let missing = PRIVILEGES.iter().filter(|privilege| !here.contains(**privilege)).count();
    let unwanted = here.iter().filter(|privilege| !PRIVILEGES.contains(&privilege.as_str())).count();
    // Roles, privileges on tables and routines, and privileges of plugins each have a line. Expected are one line for
    // the login, and one for the database if there are privileges on it.
    let lines = session.raw_texts(format!("SHOW GRANTS FOR {account}")).await?;
    let lines = lines.iter().filter(|line| line.contains(site.name)).count();
    let lines = lines.saturating_sub(if here.is_empty() { 1 } else { 2 });
    Ok(PrivilegeDiff { missing, excess: global + elsewhere + unwanted + lines })
}

/// Grants the intended privileges to the user.
pub(super) async fn grant(session: &mut Session<'_>, site: Site<'_>) -> Result<(), Failure> {
    let account = session.quoting.account(site.name, site.host)?;
    let database = session.quoting.grant(site.name)?;
    session.change(format!("GRANT {} ON {database}.* TO {account}", PRIVILEGES.join(", "))).await
}
