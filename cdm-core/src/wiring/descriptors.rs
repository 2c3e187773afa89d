//! The limit of open files and sockets of this process, and the connections that each listener may have within it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are reserved for the store, the backends, webhooks, gates and files.
const BACKENDS: u64 = 256;
/// The maximum number of connections to the API. More connections use memory without a benefit.
const MAX_API: u64 = 2_048;
/// The maximum number of connections to the router of the local cluster, for the same reason.
const MAX_ROUTER: u64 = 1_024;
/// Descriptors per connection to the router: the connection itself, and both ends of the connection to a pod, which runs in
/// this process.
const PER_ROUTER_CONNECTION: u64 = 3;

/// The limit of open descriptors, and the connections that each listener may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// The soft limit of open descriptors (`RLIMIT_NOFILE`).
    pub limit: u64,
    /// The maximum number of connections to the API, at least 1.
    pub api: usize,
    /// The maximum number of connections to the router of the local cluster, at least 1.
    pub router: usize,
}

impl Descriptors {
    /// Raises the soft limit of this process to the hard limit if the system permits it, and returns the result.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum {
            // A system may reject its own hard limit; the current soft limit then stays.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        }
        Self::current()
    }

    /// Returns the shares of the current limit.
    pub fn current() -> Self {
        Self::from_limit(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Divides a limit: up to a quarter for the backends, up to a quarter for the router, and the rest for the API.
    fn from_limit(limit: u64) -> Self {
        let backends = BACKENDS.min(limit / 4);
        let router = MAX_ROUTER.min(limit / 4 / PER_ROUTER_CONNECTION);
        let api = MAX_API.min(limit.saturating_sub(backends + router * PER_ROUTER_CONNECTION));
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
            let Descriptors { api, router, .. } = Descriptors::from_limit(limit);
            let used = api as u64 + PER_ROUTER_CONNECTION * router as u64;
            assert!(used <= limit - BACKENDS.min(limit / 4), "{limit}: {api} and {router}");
        }
        assert_eq!(Descriptors::from_limit(1_024), Descriptors { limit: 1_024, api: 513, router: 85 });
        assert_eq!(
            Descriptors::from_limit(u64::MAX),
            Descriptors { limit: u64::MAX, api: 2_048, router: 1_024 }
        );
    }
}
