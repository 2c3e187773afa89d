//! What went wrong between us and the server, and what that is to the port's caller.

use sqlx::mysql::MySqlDatabaseError;

use super::quoting::Unquotable;
use crate::ports::{ErrorKind, Outcome, PortError};

pub(super) const PORT: &str = "databases";

/// Why a call ended early.
#[derive(Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    message: String,
    /// The server's number; nothing where it gave no answer.
    number: Option<u16>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), number: None }
    }

    /// The call's deadline has come.
    pub(super) fn late() -> Self {
        Self::new(ErrorKind::Unavailable, "the call's deadline passed before it was done")
    }

    /// The table of removed sites, or its schema, has not been made yet.
    pub(super) fn no_table(&self) -> bool {
        matches!(self.number, Some(1049 | 1146))
    }

    /// The connection that was to be ended is gone already.
    pub(super) fn no_thread(&self) -> bool {
        self.number == Some(1094)
    }

    /// What this is to a caller that only reads.
    pub(super) fn into_error(self) -> PortError {
        PortError::new(PORT, self.kind, self.message)
    }

    /// What this is to a caller that changes something. While no statement that changes had been sent, nothing can
    /// take effect. Afterwards only a refusal that a repetition would meet too ends the call for certain.
    pub(super) fn into_outcome<T>(self, begun: bool) -> Outcome<T> {
        let error = self.into_error();
        if begun && error.is_retryable() { Outcome::Unknown(error) } else { Outcome::NotApplied(error) }
    }
}

impl From<sqlx::Error> for Failure {
    /// The server's words may quote the statement, a user or a host; only its number is kept.
    fn from(error: sqlx::Error) -> Self {
        let answer =
            error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
        let Some(number) = answer.map(MySqlDatabaseError::number) else {
            return Self::new(ErrorKind::Unavailable, unconnected(&error));
        };
        let (kind, words) = of_number(number);
        Self { kind, message: format!("{words} (error {number})"), number: Some(number) }
    }
}

/// Why there is no connection, and what to do about it.
fn unconnected(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Tls(reason) if reason.to_string().contains("does not support TLS") => {
            "the database server offers no TLS, and a connection beyond this machine needs it; set the server's \
             certificate up, or name another `ssl-mode` in the database URL"
        }
        sqlx::Error::Tls(_) => {
            "no TLS connection to the database server can be made; see `ssl-ca` and `ssl-mode` of the database URL"
        }
        // What rustls refuses in the middle of a handshake arrives as an error of the connection.
        sqlx::Error::Io(io) if is_about_a_certificate(io) => {
            "the database server's certificate is not accepted: it has to be of the host's name in the database URL \
             and signed by the system's authorities, or by those of the file in `ssl-ca=…` (for Amazon RDS, its \
             certificate bundle)"
        }
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::NotFound => {
            "a file or a socket that the database URL names is not there"
        }
        _ => "the database server does not answer",
    }
}

fn is_about_a_certificate(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::InvalidData && error.to_string().contains("certificate")
}

impl From<Unquotable> for Failure {
    fn from(Unquotable: Unquotable) -> Self {
        Self::new(ErrorKind::Invalid, "a name or a password has a NUL in it")
    }
}

/// What an error number of MySQL or MariaDB means to a caller.
fn of_number(number: u16) -> (ErrorKind, &'static str) {
    match number {
        // No right to a database, no login, no right to a table or column, to end a connection, to a global thing.
        1044 | 1045 | 1095 | 1130 | 1142 | 1143 | 1227 | 1370 | 1410 | 1698 | 3118 | 3159 | 4151 => {
            (ErrorKind::Denied, "the database server denies it to its administrator")
        }
        // Too many connections, in all or for one user; no memory for another; too many errors from this host.
        1040 | 1041 | 1129 | 1135 | 1203 | 1226 => {
            (ErrorKind::Throttled(None), "the database server takes no more connections now")
        }
        // Read-only, or on the way to it or from it: a fail-over mends it.
        1290 | 1792 | 1836 | 3100 | 3101 => {
            (ErrorKind::Unavailable, "the database server takes no writes now")
        }
        // A lock that someone else holds, a statement that took too long or was ended.
        1205 | 1213 | 1317 | 1969 | 3024 => {
            (ErrorKind::Unavailable, "the database server did not come to it in time")
        }
        // Wrong as it stands: syntax, a name, a password that the server's rules refuse, an unknown character set.
        1064 | 1102 | 1115 | 1273 | 1470 | 1819 => (ErrorKind::Invalid, "the database server refuses it"),
        // Shutting down, killed, broken connections (1053, 1077, 1158 to 1161, 1927, a proxy's 2006 and 2013), full disks,
        // and whatever else: nothing that can be relied on was said.
        _ => (ErrorKind::Unavailable, "the database server failed at it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(number: u16, begun: bool) -> Outcome<()> {
        Failure { kind: of_number(number).0, message: String::new(), number: Some(number) }
            .into_outcome(begun)
    }

    #[test]
    fn a_fail_over_in_between_leaves_it_unknown() {
        for number in [1053, 1205, 1290, 1317, 1836, 1927, 1969, 2006, 2013, 3024, 3100, 65_535] {
            assert!(matches!(outcome(number, true), Outcome::Unknown(_)), "{number}");
            assert!(matches!(outcome(number, false), Outcome::NotApplied(_)), "{number}");
        }
    }

    #[test]
    fn a_refusal_is_no_maybe() {
        for (number, kind) in [
            (1044, ErrorKind::Denied),
            (1045, ErrorKind::Denied),
            (1142, ErrorKind::Denied),
            (1227, ErrorKind::Denied),
            (1819, ErrorKind::Invalid),
        ] {
            let Outcome::NotApplied(error) = outcome(number, true) else { panic!("{number}") };
            assert_eq!(error.kind, kind, "{number}");
        }
        assert_eq!(of_number(1040).0, ErrorKind::Throttled(None));
    }
}
