//! Failures of the database server, and their meaning for the port's caller.

use sqlx::mysql::MySqlDatabaseError;

use super::quoting::Unquotable;
use crate::ports::{ErrorKind, Outcome, PortError};

pub(super) const PORT: &str = "databases";

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    message: String,
    /// The server's error number; `None` if the server did not respond.
    number: Option<u16>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), number: None }
    }

    /// Returns the failure of a call whose deadline has passed.
    pub(super) fn late() -> Self {
        Self::new(ErrorKind::Unavailable, "the deadline passed before the call completed")
    }

    /// Returns whether the table or its schema does not exist yet.
    pub(super) fn is_missing_table(&self) -> bool {
        matches!(self.number, Some(1049 | 1146))
    }

    /// Returns whether the connection to end no longer exists.
    pub(super) fn is_missing_connection(&self) -> bool {
        self.number == Some(1094)
    }

    /// Returns the error for a caller that reads.
    pub(super) fn into_error(self) -> PortError {
        PortError::new(PORT, self.kind, self.message)
    }

    /// Returns the outcome for a caller that changes something. As long as no changing statement was sent, nothing can
    /// take effect. After that, the outcome is certain only for errors that a retry would return as well.
    pub(super) fn into_outcome<T>(self, change_sent: bool) -> Outcome<T> {
        let error = self.into_error();
        if change_sent && error.is_retryable() { Outcome::Unknown(error) } else { Outcome::NotApplied(error) }
    }
}

impl From<sqlx::Error> for Failure {
    /// Keeps only the error number: the server's message may quote the statement, a user or a host.
    fn from(error: sqlx::Error) -> Self {
        let database_error =
            error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
        let Some(number) = database_error.map(MySqlDatabaseError::number) else {
            return Self::new(ErrorKind::Unavailable, connection_error(&error));
        };
        let (kind, text) = classify(number);
        Self { kind, message: format!("{text} (error {number})"), number: Some(number) }
    }
}

/// Returns why no connection could be established, and how to fix it.
fn connection_error(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Tls(reason) if reason.to_string().contains("does not support TLS") => {
            "the database server does not support TLS, which connections to other machines require; configure a \
             certificate on the server, or set `ssl-mode` in the database URL"
        }
        sqlx::Error::Tls(_) => {
            "a TLS connection to the database server cannot be established; check `ssl-ca` and `ssl-mode` in the database URL"
        }
        // A rejection by rustls during the handshake is reported as an I/O error.
        sqlx::Error::Io(io) if is_about_a_certificate(io) => {
            "the certificate of the database server is not accepted: it must be for the host name in the database URL \
             and signed by a system authority or by one in the file of `ssl-ca=…` (for Amazon RDS, its \
             certificate bundle)"
        }
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::NotFound => {
            "a file or a socket in the database URL does not exist"
        }
        _ => "the database server did not respond",
    }
}

fn is_about_a_certificate(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::InvalidData && error.to_string().contains("certificate")
}

impl From<Unquotable> for Failure {
    fn from(Unquotable: Unquotable) -> Self {
        Self::new(ErrorKind::Invalid, "a name or a password contains a NUL character")
    }
}

/// Returns the meaning of an error number of MySQL or MariaDB.
fn classify(number: u16) -> (ErrorKind, &'static str) {
    match number {
        // No privilege on a database, table or column, no login, no privilege to end a connection or to change global
        // settings.
        1044 | 1045 | 1095 | 1130 | 1142 | 1143 | 1227 | 1370 | 1410 | 1698 | 3118 | 3159 | 4151 => {
            (ErrorKind::Denied, "the database server denied the statement to its administrator")
        }
        // Too many connections in total or for one user, no memory for another one, too many errors from this host.
        1040 | 1041 | 1129 | 1135 | 1203 | 1226 => {
            (ErrorKind::Throttled(None), "the database server accepts no more connections at the moment")
        }
        // Read-only, or changing to or from read-only. A failover resolves it.
        1290 | 1792 | 1836 | 3100 | 3101 => {
            (ErrorKind::Unavailable, "the database server is read-only at the moment")
        }
        // A lock of another session, or a statement that took too long or was ended.
        1205 | 1213 | 1317 | 1969 | 3024 => {
            (ErrorKind::Unavailable, "the database server did not complete the statement in time")
        }
        // Invalid statements: syntax, a name, a password that violates the server's policy, an unknown character set.
        1064 | 1102 | 1115 | 1273 | 1470 | 1819 => {
            (ErrorKind::Invalid, "the database server rejected the statement")
        }
        // Shutdown, ended sessions, lost connections (1053, 1077, 1158 to 1161, 1927, a proxy's 2006 and 2013), full
        // disks, and all other numbers: the state of the statement is unknown.
        _ => (ErrorKind::Unavailable, "the database server failed to execute the statement"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(number: u16, change_sent: bool) -> Outcome<()> {
        Failure { kind: classify(number).0, message: String::new(), number: Some(number) }
            .into_outcome(change_sent)
    }

    #[test]
    fn an_outage_during_a_change_leaves_the_outcome_unknown() {
        for number in [1053, 1205, 1290, 1317, 1836, 1927, 1969, 2006, 2013, 3024, 3100, 65_535] {
            assert!(matches!(outcome(number, true), Outcome::Unknown(_)), "{number}");
            assert!(matches!(outcome(number, false), Outcome::NotApplied(_)), "{number}");
        }
    }

    #[test]
    fn a_rejection_is_certain() {
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
        assert_eq!(classify(1040).0, ErrorKind::Throttled(None));
    }
}
