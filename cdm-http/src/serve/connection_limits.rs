//! The limits and timeouts of the listener's connections.

use std::time::Duration;

/// The limits and timeouts of the listener's connections. The defaults are [`Self::within`] 512 connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The maximum number of open connections, without `reserved`. Each connection needs a file descriptor and memory.
    /// Default: 448.
    pub total: usize,
    /// The maximum number of open connections per address, except for loopback addresses and trusted proxies. Default:
    /// 112. A low value affects users behind one address; with a high value, one client can use most connections.
    pub per_address: usize,
    /// Additional connections for addresses with fewer than 4 connections, used only while all others handle requests.
    /// Default: 64. A larger number keeps the server reachable for others during a flood, at the cost of `total`.
    pub reserved: usize,
    /// The maximum time from the accept to the end of the first request header, including the TLS handshake. Default:
    /// 15 s. A shorter time frees the connections of slow clients sooner, and disconnects clients on slow networks.
    pub header_timeout: Duration,
    /// The maximum time from the end of a response to the end of the next request header. Default: 30 s. A longer time
    /// saves handshakes, and keeps idle connections open.
    pub idle_timeout: Duration,
    /// The idle timeout of trusted proxies, which reuse connections. Default: 90 s. A time above the idle timeout of
    /// the proxy avoids requests on a connection that is being closed.
    pub proxy_idle_timeout: Duration,
    /// The maximum time in which the client reads no data that is sent to it. Default: 30 s. A shorter time frees
    /// memory sooner, and ends downloads that stall for as long.
    pub write_timeout: Duration,
    /// The maximum size of a request header, in bytes. Default: 32 KiB. A larger value costs memory per connection.
    pub header_bytes: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::within(512)
    }
}

impl ConnectionLimits {
    /// Returns limits for `connections` connections in total: one eighth (at least 16, at most one half) is reserved, and one
    /// address gets one quarter (at least 8) of the others.
    pub fn within(connections: usize) -> Self {
        let reserved = (connections / 8).max(16).min(connections / 2);
        let total = (connections - reserved).max(1);
        Self {
            total,
            per_address: (total / 4).max(8).min(total),
            reserved,
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            proxy_idle_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(30),
            header_bytes: 32 * 1024,
        }
    }
}
