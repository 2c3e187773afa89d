//! A receiver's address, parsed at the door, and the receivers that may be inside.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::is_public;
use crate::domain::Hostname;
use crate::domain::name::NameError;

const WHAT: &str = "a webhook's address";

/// Where a webhook is sent.
///
/// Invariants: `https`, unless configuration has it otherwise; a name of two labels or more, or what configuration
/// has; visible ASCII; no user, no fragment. Its `Debug` and errors leave out path and query, which may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Receiver {
    tls: bool,
    host: String,
    port: u16,
    target: String,
    inside: bool,
}

/// A receiver of the configuration, which may have any address: `name:port`, or `http://name:port` for one without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    tls: bool,
    host: String,
    port: u16,
}

impl Allowed {
    /// Parses an entry of the configuration.
    ///
    /// # Errors
    /// One without a port, with a path, in upper case, or with what no host has.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rule = "a receiver that is allowed is `name:port`, or `http://name:port` for one without TLS";
        let refused = || NameError::new("a receiver", rule, text);
        let (tls, cursor) = text.strip_prefix("http://").map_or((true, text), |cursor| (false, cursor));
        let (host, port) = cursor.rsplit_once(':').ok_or_else(refused)?;
        let port = self::port(port).ok_or_else(refused)?;
        // An IPv6 address in brackets, in the one spelling that it is printed in.
        let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        let sound = match v6 {
            Some(v6) => {
                v6.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() && address.to_string() == v6)
            }
            None => !host.is_empty() && host.len() <= 253 && host.bytes().all(plain),
        };
        if sound { Ok(Self { tls, host: host.to_owned(), port }) } else { Err(refused()) }
    }
}

impl Receiver {
    /// Most characters of an address.
    pub const LONGEST: usize = 1_000;

    /// Parses `https://name[:port][/path][?query]`. What configuration allows is compared as text, so that no other
    /// spelling of an address inside comes through.
    ///
    /// # Errors
    /// Everything else. The error repeats no more of the address than its scheme.
    pub fn parse(text: &str, allowed: &[Allowed]) -> Result<Self, NameError> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let refused = |rule| NameError::new(WHAT, rule, scheme);
        if text.len() > Self::LONGEST {
            return Err(refused("a webhook's address has at most 1000 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            return Err(refused(
                "a webhook's address is visible ASCII without backslashes; write other names in Punycode",
            ));
        }
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(refused("a webhook's address begins with https://")),
        };
        let rest = &text[scheme.len() + "://".len()..];
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(refused("a webhook's address has no user and no password"));
        }
        if target.contains('#') {
            return Err(refused("a webhook's address has no fragment"));
        }
        let (host, written) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            Some(_) | None => (authority, None),
        };
        let usual = if tls { 443 } else { 80 };
        let port = written
            .map_or(Some(usual), port)
            .ok_or_else(|| refused("the port of a webhook's address is from 1 to 65535"))?;
        let known = |entry: &Allowed| (entry.tls, entry.host.as_str(), entry.port) == (tls, host, port);
        let inside = allowed.iter().any(known);
        if !inside {
            if !tls {
                return Err(refused("a webhook's address begins with https://"));
            }
            // Lower case as it is written, so that there is one spelling of each.
            let name = Hostname::parse(host).ok().filter(|name| name.as_str() == host);
            if name.is_none() {
                return Err(refused(
                    "the host of a webhook's address is a name in lower case, with a dot inside and none at the \
                     end, and no IP address; others have to be allowed by the configuration",
                ));
            }
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { tls, host: host.to_owned(), port, target, inside })
    }

    /// Of what the name was looked up to, the address to be connected to: the first one, if all of them may be. One
    /// address inside refuses them all, since the next look-up might put it first.
    pub fn choose(&self, found: &[SocketAddr]) -> Option<SocketAddr> {
        let fit =
            |address: &SocketAddr| address.port() == self.port && (self.inside || is_public(address.ip()));
        found.iter().all(fit).then(|| found.first().copied()).flatten()
    }

    /// Whether TLS is spoken.
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// The host, as it is looked up: an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, beginning with `/`.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({}:{})", self.host, self.port)
    }
}

/// A port in its one spelling.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port != 0 && port.to_string() == text).then_some(port)
}
