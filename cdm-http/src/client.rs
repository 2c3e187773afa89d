//! The client of a request: the peer of the connection or, behind trusted proxies, the address that the proxies forward.
//!
//! Only this module reads `X-Forwarded-For` and `X-Forwarded-Proto`. The headers count only if a trusted proxy sends them,
//! and then from right to left, since each proxy appends its entry. Entries to the left of the first untrusted address
//! were written by the client and are ignored.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;

use crate::app::SharedState;

/// Headers that show that a proxy forwarded the request.
const FORWARDED: [&str; 7] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
];

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
}

/// How the client's connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Plaintext,
    Tls,
}

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// The client's address; `None` for a caller in this process.
    pub(crate) address: Option<IpAddr>,
    pub(crate) machine: Machine,
    /// The transport of the client's connection, to this server or to the proxy in front of it.
    pub(crate) transport: Transport,
}

/// Where the client runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// On this machine: a loopback peer without forwarding headers.
    This,
    /// On another machine, or behind a proxy.
    Other,
}

impl Client {
    /// A caller in this process.
    pub(crate) const IN_PROCESS: Self =
        Self { address: None, machine: Machine::This, transport: Transport::Plaintext };

    fn of(peer: Peer, headers: &HeaderMap, proxies: &[IpNet]) -> Self {
        let address = peer.address.ip().to_canonical();
        let forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
        let machine = if address.is_loopback() && !forwarded { Machine::This } else { Machine::Other };
        if !is_trusted(proxies, address) {
            return Self { address: Some(address), machine, transport: peer.transport };
        }
        let hops = entries(headers, "x-forwarded-for");
        let client = hops.rev().map(hop).try_fold(address, |nearer, hop| match hop {
            // The entry is not an address, so the client is unknown; the proxy that wrote the entry counts as the client.
            None => Err(nearer),
            Some(hop) if is_trusted(proxies, hop) => Ok(hop),
            Some(hop) => Err(hop),
        });
        let transport = match entries(headers, "x-forwarded-proto").next_back() {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Transport::Tls,
            Some(_) => Transport::Plaintext,
            None => peer.transport,
        };
        Self { address: Some(client.unwrap_or_else(|hop| hop)), machine, transport }
    }

    /// Returns the client that [`resolve_client`] stored, or [`Self::IN_PROCESS`] without one.
    pub(crate) fn from_extensions(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self::IN_PROCESS)
    }

    pub(crate) fn is_on_this_machine(self) -> bool {
        self.machine == Machine::This
    }

    pub(crate) fn has_tls(self) -> bool {
        self.transport == Transport::Tls
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_extensions(&parts.extensions))
    }
}

/// Returns whether an address belongs to a trusted proxy.
pub(crate) fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(&address))
}

/// Returns the entries of a list that may span several headers; a value that is not ASCII counts as one empty entry.
fn entries<'a>(headers: &'a HeaderMap, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
    let values: Vec<&str> =
        headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    values.into_iter().flat_map(|value| value.split(',')).map(str::trim)
}

/// Parses an entry of `X-Forwarded-For`; some proxies append the port.
fn hop(entry: &str) -> Option<IpAddr> {
    let address = entry.parse::<IpAddr>().ok();
    let address = address.or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bracketed).map(|address| address.to_canonical())
}

/// Stores the client of a request in its extensions, for the handlers and the middleware that follow.
pub(crate) async fn resolve_client(
    State(server): State<SharedState>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0);
    let proxies = &server.app.settings.trusted_proxies;
    let client = peer.map_or(Client::IN_PROCESS, |peer| Client::of(peer, request.headers(), proxies));
    request.extensions_mut().insert(client);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn client(peer: &str, trusted: &[&str], headers: &[(&'static str, &'static str)]) -> Client {
        let proxies: Vec<IpNet> = trusted.iter().map(|text| text.parse().expect("a network")).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let address = SocketAddr::new(peer.parse().expect("an address"), 4711);
        Client::of(Peer { address, transport: Transport::Plaintext }, &map, &proxies)
    }

    fn address(peer: &str, trusted: &[&str], headers: &[(&'static str, &'static str)]) -> String {
        client(peer, trusted, headers).address.expect("an address").to_string()
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        let trusted = ["10.0.0.0/8", "127.0.0.1/32", "::1/128"];
        for (peer, forwarded, expected) in [
            ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
            ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
            ("::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
            ("10.0.0.1", "1.1.1.1, 203.0.113.7", "203.0.113.7"),
            ("10.0.0.1", "1.1.1.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "203.0.113.7:55123", "203.0.113.7"),
            ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
            ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
            ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
            ("10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
            ("10.0.0.1", "203.0.113.7, unknown", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.7,", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("203.0.113.9", "127.0.0.1", "203.0.113.9"),
        ] {
            let found = address(peer, &trusted, &[("x-forwarded-for", forwarded)]);
            assert_eq!(found, expected, "{peer} forwards {forwarded}");
        }
        let several = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(address("10.0.0.1", &trusted, &several), "203.0.113.7");
        assert_eq!(address("10.0.0.1", &trusted, &[]), "10.0.0.1");
    }

    #[test]
    fn a_forwarded_request_is_never_from_this_machine() {
        for trusted in [&[][..], &["127.0.0.0/8", "::1/128"]] {
            for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
                assert!(client(peer, trusted, &[]).is_on_this_machine(), "{peer}, {trusted:?}");
                for name in FORWARDED {
                    let client = client(peer, trusted, &[(name, "127.0.0.1")]);
                    assert!(!client.is_on_this_machine(), "{peer}, {trusted:?}, {name}");
                }
            }
            assert!(!client("203.0.113.7", trusted, &[]).is_on_this_machine());
        }
        assert!(!client("203.0.113.7", &["203.0.113.7/32"], &[]).is_on_this_machine());
        assert!(Client::IN_PROCESS.is_on_this_machine());
    }

    #[test]
    fn only_a_trusted_proxy_reports_tls() {
        let https = [("x-forwarded-proto", "https")];
        assert!(client("10.0.0.1", &["10.0.0.0/8"], &https).has_tls());
        assert!(!client("10.0.0.1", &["10.0.0.0/8"], &[("x-forwarded-proto", "https, http")]).has_tls());
        assert!(!client("10.0.0.1", &["10.0.0.0/8"], &[]).has_tls());
        assert!(!client("203.0.113.7", &["10.0.0.0/8"], &https).has_tls(), "clients can send the header too");
    }
}
