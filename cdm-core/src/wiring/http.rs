//! How clients reach the API: proxies in front of the server, TLS, and plaintext beyond this machine.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::config::{ConfigError, Environment};
use super::given::{parsed, pick};

/// What a configuration file may say about it; the keys are at the top level.
#[derive(Debug, Default)]
pub(super) struct RawHttp {
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) tls_cert: Option<String>,
    pub(super) tls_key: Option<String>,
    pub(super) allow_plaintext: Option<bool>,
    pub(super) public_url: Option<String>,
}

/// How clients reach the API.
#[derive(Clone, Debug, Default)]
pub struct HttpConfig {
    /// Addresses of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. `CDM_TRUSTED_PROXIES` (with
    /// commas), `trusted_proxies`.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate and key of the API's listener; `None`: it speaks plaintext.
    pub tls: Option<TlsFiles>,
    /// Whether the API, and the router of the local cluster, may be served without TLS on an address that other machines
    /// reach. `CDM_ALLOW_PLAINTEXT`, `allow_plaintext`.
    pub allow_plaintext: bool,
    /// The path of the address at which browsers and clients reach the server, such as `/cdm`; empty where it is the
    /// root. Of `CDM_PUBLIC_URL`, `public_url` or `oidc.public_url`.
    pub root: String,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by its intermediates. `CDM_TLS_CERT`, `tls_cert`.
    pub cert: PathBuf,
    /// The private key. `CDM_TLS_KEY`, `tls_key`.
    pub key: PathBuf,
}

impl HttpConfig {
    pub(super) fn of(environment: Environment<'_>, raw: RawHttp) -> Result<Self, ConfigError> {
        let path = |variable: &str, key: &str, of_file| {
            pick(environment, variable, key, of_file).map(|(_, value)| PathBuf::from(value))
        };
        let cert = path("CDM_TLS_CERT", "tls_cert", raw.tls_cert);
        let key = path("CDM_TLS_KEY", "tls_key", raw.tls_key);
        let missing = |key: &str, other: &str| ConfigError {
            key: key.to_owned(),
            message: format!("is not set, but `{other}` is; a TLS listener needs both"),
        };
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => return Err(missing("CDM_TLS_KEY", "CDM_TLS_CERT")),
            (None, Some(_)) => return Err(missing("CDM_TLS_CERT", "CDM_TLS_KEY")),
        };
        let plaintext = raw.allow_plaintext.map(|yes| yes.to_string());
        let plaintext = pick(environment, "CDM_ALLOW_PLAINTEXT", "allow_plaintext", plaintext);
        let public_url = pick(environment, "CDM_PUBLIC_URL", "public_url", raw.public_url);
        Ok(Self {
            root: public_url.map_or(Ok(String::new()), |(key, url)| root(&key, &url))?,
            trusted_proxies: proxies(environment, raw.trusted_proxies)?,
            tls,
            allow_plaintext: parsed(plaintext, "false", "`true` or `false`", |_| true)?,
        })
    }
}

/// The path of a public address. It stands in pages and cookies, so only what needs no quoting there is taken.
fn root(key: &str, url: &str) -> Result<String, ConfigError> {
    let refuse = |why: &str| ConfigError { key: key.to_owned(), message: format!("`{url}` {why}") };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| refuse("does not begin with https:// or http://"))?;
    let path = rest.find(['/', '?', '#']).map_or("", |at| &rest[at..]).trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(plain)
    };
    if path.is_empty() || (path.starts_with('/') && path[1..].split('/').all(segment)) {
        Ok(path.to_owned())
    } else {
        let rule = "has another path than one of letters, digits, `-`, `.`, `_`, `~` and `/`, such as /cdm";
        Err(refuse(rule))
    }
}

/// The trusted proxies: a list in the file, one text with commas in the environment.
fn proxies(environment: Environment<'_>, of_file: Option<Vec<String>>) -> Result<Vec<IpNet>, ConfigError> {
    let of_file = of_file.map(|list| list.join(","));
    let Some((key, text)) = pick(environment, "CDM_TRUSTED_PROXIES", "trusted_proxies", of_file) else {
        return Ok(Vec::new());
    };
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let refuse = |message| ConfigError { key: key.clone(), message };
    entries.map(|entry| network(entry).map_err(refuse)).collect()
}

/// An address, or a network in CIDR notation.
fn network(entry: &str) -> Result<IpNet, String> {
    let parsed = entry.parse::<IpNet>().ok().or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from));
    match parsed {
        None => Err(format!(
            "`{entry}` is not an address or a network, such as 10.0.0.7, 10.42.0.0/16 or fd00::/8"
        )),
        // If every peer were a proxy, every client could choose its own address.
        Some(network) if network.prefix_len() == 0 => {
            Err(format!("`{entry}` is every address; name the proxies' own addresses or networks"))
        }
        Some(network) => Ok(network.trunc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(environment: &[(&str, &str)]) -> Result<HttpConfig, ConfigError> {
        let ask = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        HttpConfig::of(&ask, RawHttp::default())
    }

    #[test]
    fn trusted_proxies_are_addresses_and_networks() {
        let config = of(&[("CDM_TRUSTED_PROXIES", "127.0.0.1, 10.42.7.9/16,fd00::/8, ::1")]).unwrap();
        let shown: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.1/32", "10.42.0.0/16", "fd00::/8", "::1/128"]);
        for wrong in ["nginx", "10.0.0.0/33", "0.0.0.0/0", "::/0", "127.0.0.1:80"] {
            let refused = of(&[("CDM_TRUSTED_PROXIES", wrong)]).unwrap_err();
            assert_eq!(refused.key, "CDM_TRUSTED_PROXIES");
            assert!(refused.message.contains(wrong), "{refused}");
        }
    }

    #[test]
    fn the_path_of_the_public_address_is_taken() {
        for (url, expected) in [
            ("https://cdm.example.com", ""),
            ("https://cdm.example.com/", ""),
            ("https://example.com/cdm", "/cdm"),
            ("http://127.0.0.1:8080/tools/cdm/", "/tools/cdm"),
        ] {
            assert_eq!(of(&[("CDM_PUBLIC_URL", url)]).unwrap().root, expected, "{url}");
        }
        for url in [
            "cdm.example.com/cdm",
            "https://example.com/a b",
            "https://example.com//cdm",
            "https://example.com/../cdm",
            "https://example.com/cdm?a",
            "https://example.com/\"onload",
        ] {
            assert_eq!(of(&[("CDM_PUBLIC_URL", url)]).unwrap_err().key, "CDM_PUBLIC_URL", "{url}");
        }
    }

    #[test]
    fn certificate_and_key_go_together() {
        let files = of(&[("CDM_TLS_CERT", "/tls/tls.crt"), ("CDM_TLS_KEY", "/tls/tls.key")]).unwrap().tls;
        let expected = TlsFiles { cert: "/tls/tls.crt".into(), key: "/tls/tls.key".into() };
        assert_eq!(files, Some(expected));
        assert_eq!(of(&[("CDM_TLS_CERT", "/tls/tls.crt")]).unwrap_err().key, "CDM_TLS_KEY");
        assert_eq!(of(&[("CDM_TLS_KEY", "/tls/tls.key")]).unwrap_err().key, "CDM_TLS_CERT");
        assert_eq!(of(&[("CDM_ALLOW_PLAINTEXT", "perhaps")]).unwrap_err().key, "CDM_ALLOW_PLAINTEXT");
    }
}
