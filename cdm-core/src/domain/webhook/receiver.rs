//! The URL of a receiver, parsed on input, and the non-public receivers that the configuration allows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::is_public;
use crate::domain::Hostname;
use crate::domain::name::NameError;

const KIND: &str = "a webhook's address";

/// The destination of a webhook's messages.
///
/// Invariants: `https` unless the configuration allows another scheme; a hostname of two or more labels, or a host
/// that the configuration allows; visible ASCII; no user and no fragment. `Debug` and error messages leave out path
/// and query, which may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Receiver {
    tls: bool,
    host: String,
    port: u16,
    target: String,
    listed: bool,
}

/// A receiver that the configuration allows, at any address: `name:port`, or `http://name:port` for one without TLS.
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
    /// Returns an error if the port is missing, if the entry has a path or an uppercase letter, or if the host has an
    /// invalid character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rule = "an allowed receiver is `name:port`, or `http://name:port` for a receiver without TLS";
        let invalid = || NameError::new("a receiver", rule, text);
        let (tls, rest) = text.strip_prefix("http://").map_or((true, text), |rest| (false, rest));
        let (host, port) = rest.rsplit_once(':').ok_or_else(invalid)?;
        let port = self::port(port).ok_or_else(invalid)?;
        // An IPv6 address in brackets, in the canonical spelling only.
        let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        let is_host = match v6 {
            Some(v6) => {
                v6.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() && address.to_string() == v6)
            }
            None => !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed),
        };
        if is_host { Ok(Self { tls, host: host.to_owned(), port }) } else { Err(invalid()) }
    }
}

impl Receiver {
    /// The maximum length of an address in characters.
    pub const LONGEST: usize = 1_000;

    /// Parses `https://name[:port][/path][?query]`. An address that the configuration allows is compared as text, so
    /// that another spelling of a non-public address is rejected.
    ///
    /// # Errors
    /// Returns an error for any other text. The error contains no part of the address except its scheme.
    pub fn parse(text: &str, allowed: &[Allowed]) -> Result<Self, NameError> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let invalid = |rule| NameError::new(KIND, rule, scheme);
        if text.len() > Self::LONGEST {
            return Err(invalid("a webhook's address must have at most 1000 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            return Err(invalid(
                "a webhook's address must be visible ASCII without backslashes; write other names in Punycode",
            ));
        }
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(invalid("a webhook's address must begin with https://")),
        };
        let rest = &text[scheme.len() + "://".len()..];
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(invalid("a webhook's address must not have a user or a password"));
        }
        if target.contains('#') {
            return Err(invalid("a webhook's address must not have a fragment"));
        }
        let (host, explicit_port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            Some(_) | None => (authority, None),
        };
        let default_port = if tls { 443 } else { 80 };
        let port = explicit_port
            .map_or(Some(default_port), port)
            .ok_or_else(|| invalid("the port of a webhook's address must be from 1 to 65535"))?;
        let matches = |entry: &Allowed| (entry.tls, entry.host.as_str(), entry.port) == (tls, host, port);
        let listed = allowed.iter().any(matches);
        if !listed {
            if !tls {
                return Err(invalid("a webhook's address must begin with https://"));
            }
            // Only lowercase is accepted, so that each address has one spelling.
            let name = Hostname::parse(host).ok().filter(|name| name.as_str() == host);
            if name.is_none() {
                return Err(invalid(
                    "the host of a webhook's address must be a lowercase name that contains a dot, does not end with \
                    one, and is not an IP address; the configuration can allow other hosts",
                ));
            }
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { tls, host: host.to_owned(), port, target, listed })
    }

    /// Returns the address to connect to: the first of the resolved addresses, if every one of them is allowed. One
    /// non-public address rejects them all, because the next lookup could return it first.
    pub fn choose(&self, resolved: &[SocketAddr]) -> Option<SocketAddr> {
        let is_allowed =
            |address: &SocketAddr| address.port() == self.port && (self.listed || is_public(address.ip()));
        resolved.iter().all(is_allowed).then(|| resolved.first().copied()).flatten()
    }

    /// Returns whether the connection uses TLS.
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// Returns the host to resolve; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns path and query, starting with `/`.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({}:{})", self.host, self.port)
    }
}

/// Parses a port in its canonical spelling, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port != 0 && port.to_string() == text).then_some(port)
}
