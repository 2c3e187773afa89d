//! How many files and sockets this process may have open, and how they are divided among what opens them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for the store, the backends, webhooks, gates and files.
const BACKENDS: u64 = 256;
/// Connections to the API beyond which more memory is spent than is of use.
const MOST_API: u64 = 2_048;
/// Connections to the local cluster's router, likewise.
const MOST_ROUTER: u64 = 1_024;
/// What a connection to the router takes: itself, and both ends of the one to a pod in this process.
const OF_ROUTER: u64 = 3;

/// The limit of open descriptors, and the shares of the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// `RLIMIT_NOFILE`.
    pub limit: u64,
    /// Connections that the API's listener may have.
    pub api: usize,
    /// Connections that the local cluster's router may have.
    pub router: usize,
}

impl Descriptors {
    /// Raises the soft limit of this process to its hard one, where that can be done.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum {
            // A system may refuse a limit that it has stated as its own; then the present one holds.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        }
        Self::present()
    }

    /// What the present limit allows.
    pub fn present() -> Self {
        Self::of_limit(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// A quarter for the backends and a quarter for the router, as far as they need so many; the rest for the API.
    fn of_limit(limit: u64) -> Self {
        let backends = BACKENDS.min(limit / 4);
        let router = MOST_ROUTER.min(limit / 4 / OF_ROUTER);
        let api = MOST_API.min(limit.saturating_sub(backends + router * OF_ROUTER));
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
        Self { limit, api: count(api), router: count(router) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_fit_into_the_limit() {
        for limit in [16, 80, 256, 1_024, 4_096, 20_480, 1_048_576, u64::MAX] {
            let Descriptors { api, router, .. } = Descriptors::of_limit(limit);
            let taken = api as u64 + OF_ROUTER * router as u64;
            assert!(taken <= limit - BACKENDS.min(limit / 4), "{limit}: {api} and {router}");
        }
        assert_eq!(Descriptors::of_limit(1_024), Descriptors { limit: 1_024, api: 513, router: 85 });
        assert_eq!(
            Descriptors::of_limit(u64::MAX),
            Descriptors { limit: u64::MAX, api: 2_048, router: 1_024 }
        );
    }
}
