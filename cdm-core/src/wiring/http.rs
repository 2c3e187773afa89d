//! How clients reach the API: trusted proxies, TLS, and plaintext for other machines.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::file::RawConfig;
use super::sources::{ConfigError, Environment, Setting};

/// How clients reach the API.
#[derive(Clone, Debug, Default)]
pub struct HttpConfig {
    /// The addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` determine the client's address
    /// and scheme, by default none. Any client with such an address can claim to be another client. `CDM_TRUSTED_PROXIES`,
    /// separated by commas, `trusted_proxies`.
    pub trusted_proxies: Vec<IpNet>,
    /// The certificate and the key of the API's listener; `None`: the listener uses plaintext.
    pub tls: Option<TlsFiles>,
    /// Whether the API and the router of the local cluster may use plaintext on an address that other machines can
    /// reach; by default `false`. With `true`, tokens and passwords cross the network unencrypted unless a proxy in
    /// front terminates TLS. `CDM_ALLOW_PLAINTEXT`, `allow_plaintext`.
    pub allow_plaintext: bool,
    /// The path of the URL by which browsers and clients reach the server, such as `/cdm`; empty for the root and by
    /// default. Part of `CDM_PUBLIC_URL`, `public_url` or `oidc.public_url`.
    pub root: String,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by its intermediate certificates. `CDM_TLS_CERT`, `tls_cert`.
    pub cert: PathBuf,
    /// The private key. `CDM_TLS_KEY`, `tls_key`.
    pub key: PathBuf,
}

impl HttpConfig {
    /// Reads how clients reach the API. `public_url` is `public_url` or `oidc.public_url`.
    pub(super) fn resolve(
        environment: Environment<'_>,
        raw: &RawConfig,
        public_url: &Setting,
    ) -> Result<Self, ConfigError> {
        let (cert, key) = (raw.tls_cert(environment), raw.tls_key(environment));
        let missing = |unset: &Setting, set: &Setting| {
            Err(unset.error(format!("is not set, but `{}` is; a TLS listener requires both", set.name())))
        };
        let tls = match (cert.text(), key.text()) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert: cert.into(), key: key.into() }),
            (None, None) => None,
            (Some(_), None) => return missing(&key, &cert),
            (None, Some(_)) => return missing(&cert, &key),
        };
        Ok(Self {
            root: public_url.parsed_by(root)?.unwrap_or_default(),
            trusted_proxies: raw.trusted_proxies(environment).list(network)?,
            tls,
            allow_plaintext: raw.allow_plaintext(environment).flag(false)?,
        })
    }
}

/// Returns the path of a public URL. The path appears in pages and cookies, so only characters that need no quoting there
/// are accepted.
fn root(url: &str) -> Result<String, String> {
    let invalid = |why: &str| format!("`{url}` {why}");
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| invalid("does not begin with `https://` or `http://`"))?;
    let path = rest.find(['/', '?', '#']).map_or("", |at| &rest[at..]).trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(plain)
    };
    if path.is_empty() || (path.starts_with('/') && path[1..].split('/').all(segment)) {
        Ok(path.to_owned())
    } else {
        let rule = "has an invalid path: each segment must consist of letters, digits, `-`, `.`, `_` and `~`, as in \
                    `/cdm`, and must not be empty, `.` or `..`";
        Err(invalid(rule))
    }
}

/// Parses an address, or a network in CIDR notation.
fn network(entry: &str) -> Result<IpNet, String> {
    let parsed = entry.parse::<IpNet>().ok().or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from));
    match parsed {
        None => Err(format!(
            "`{entry}` is not an address or a network, such as 10.0.0.7, 10.42.0.0/16 or fd00::/8"
        )),
        // If every peer was a proxy, every client could claim any address.
        Some(network) if network.prefix_len() == 0 => {
            Err(format!("`{entry}` contains every address; list the addresses or networks of the proxies"))
        }
        Some(network) => Ok(network.trunc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(variables: &[(&str, &str)]) -> Result<HttpConfig, ConfigError> {
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let raw = RawConfig::default();
        HttpConfig::resolve(&environment, &raw, &raw.public_url(&environment))
    }

    #[test]
    fn trusted_proxies_are_addresses_and_networks() {
        let config = resolve(&[("CDM_TRUSTED_PROXIES", "127.0.0.1, 10.42.7.9/16,fd00::/8, ::1")]).unwrap();
        let shown: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.1/32", "10.42.0.0/16", "fd00::/8", "::1/128"]);
        for wrong in ["nginx", "10.0.0.0/33", "0.0.0.0/0", "::/0", "127.0.0.1:80"] {
            let error = resolve(&[("CDM_TRUSTED_PROXIES", wrong)]).unwrap_err();
            assert_eq!(error.key, "CDM_TRUSTED_PROXIES");
            assert!(error.message.contains(wrong), "{error}");
        }
    }

    #[test]
    fn the_root_is_the_path_of_the_public_url() {
        for (url, expected) in [
            ("https://cdm.example.com", ""),
            ("https://cdm.example.com/", ""),
            ("https://example.com/cdm", "/cdm"),
            ("http://127.0.0.1:8080/tools/cdm/", "/tools/cdm"),
        ] {
            assert_eq!(resolve(&[("CDM_PUBLIC_URL", url)]).unwrap().root, expected, "{url}");
        }
        for url in [
            "cdm.example.com/cdm",
            "https://example.com/a b",
            "https://example.com//cdm",
            "https://example.com/../cdm",
            "https://example.com/cdm?a",
            "https://example.com/\"onload",
        ] {
            assert_eq!(resolve(&[("CDM_PUBLIC_URL", url)]).unwrap_err().key, "CDM_PUBLIC_URL", "{url}");
        }
    }

    #[test]
    fn a_certificate_requires_a_key_and_a_key_a_certificate() {
        let files =
            resolve(&[("CDM_TLS_CERT", "/tls/tls.crt"), ("CDM_TLS_KEY", "/tls/tls.key")]).unwrap().tls;
        let expected = TlsFiles { cert: "/tls/tls.crt".into(), key: "/tls/tls.key".into() };
        assert_eq!(files, Some(expected));
        assert_eq!(resolve(&[("CDM_TLS_CERT", "/tls/tls.crt")]).unwrap_err().key, "CDM_TLS_KEY");
        assert_eq!(resolve(&[("CDM_TLS_KEY", "/tls/tls.key")]).unwrap_err().key, "CDM_TLS_CERT");
        assert_eq!(resolve(&[("CDM_ALLOW_PLAINTEXT", "perhaps")]).unwrap_err().key, "CDM_ALLOW_PLAINTEXT");
    }
}
