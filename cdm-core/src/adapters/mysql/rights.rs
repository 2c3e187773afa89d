//! What a site's user may do: all that WordPress does in its own database, and nothing elsewhere.

use std::collections::BTreeSet;

use super::failure::Failure;
use super::session::Session;
use super::site::Site;

/// By the names that `GRANT` takes and the information schema gives.
const RIGHTS: [&str; 11] = [
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

/// What a user may do, compared with what it shall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Rights that it shall have and has not.
    missing: usize,
    /// Rights that it has and shall not, roles among them.
    excess: usize,
}

impl Rights {
    pub(super) const fn exact(self) -> bool {
        self.missing == 0 && self.excess == 0
    }

    pub(super) const fn too_much(self) -> bool {
        self.excess > 0
    }
}

/// Reads back what the user may do.
pub(super) async fn seen(session: &mut Session<'_>, site: Site<'_>) -> Result<Rights, Failure> {
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
    let missing = RIGHTS.iter().filter(|right| !here.contains(**right)).count();
    let unwanted = here.iter().filter(|right| !RIGHTS.contains(&right.as_str())).count();
    // Roles, rights on tables and routines, and rights of plugins each have a line of their own. One is for the login,
    // and one for the database once there are rights to it.
    let lines = session.shown(format!("SHOW GRANTS FOR {account}")).await?;
    let lines = lines.iter().filter(|line| line.contains(site.name)).count();
    let lines = lines.saturating_sub(if here.is_empty() { 1 } else { 2 });
    Ok(Rights { missing, excess: global + elsewhere + unwanted + lines })
}

/// Gives the user what it shall have.
pub(super) async fn claim_token(session: &mut Session<'_>, site: Site<'_>) -> Result<(), Failure> {
    let account = session.quoting.account(site.name, site.host)?;
    let database = session.quoting.claim_token(site.name)?;
    session.change(format!("GRANT {} ON {database}.* TO {account}", RIGHTS.join(", "))).await
}
