//! Hostnames in the canonical form in which they are compared and claimed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::name::{NameError, Rule, first_broken, text_impls};

/// The canonical name of a host in ASCII.
///
/// Invariants: UTS 46 (non-transitional) maps the name to itself. The name is lowercase and consists of two or more
/// labels of 1 to 63 letters, digits and inner hyphens; it has at most 253 characters (RFC 1035) and no trailing dot.
/// The name is not a wildcard or an IP address and has no port; its last label is not a number by the WHATWG URL
/// Standard. An `xn--` label is the exact Punycode of a label that is not ASCII (CVE-2024-12224). Other labels with
/// hyphens in the third and fourth position are plain ASCII names, which exist (`r3---sn.example.com`). Cloning is
/// cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

text_impls!(Hostname);

impl Hostname {
    /// Checked first, before any expensive processing. Characters that the mapping later ignores, such as soft
    /// hyphens, count toward the length.
    const RULES_AS_WRITTEN: &[Rule] = &[
        (|text| !text.is_empty(), "a hostname must not be empty"),
        (|text| text.len() <= 1024, "a hostname must be written in at most 1024 bytes"),
        (
            |text| !text.contains("://"),
            "a hostname must not have a scheme: remove everything up to and including `://`",
        ),
        (
            |text| !text.contains(['/', '?', '#']),
            "a hostname must not have a path or a query: leave out the first `/`, `?` or `#` and all after it",
        ),
    ];

    /// Checked on the ASCII form, so that full-width and other mapped spellings cannot bypass the rules.
    const RULES: &[Rule] = &[
        (|ascii| !ascii.contains('*'), "a hostname must not be a wildcard"),
        (|ascii| !is_ip_literal(ascii), "a hostname must not be an IP address"),
        (|ascii| !ascii.contains(':'), "a hostname must not have a port: leave out the `:` and all after it"),
        (
            |ascii| ascii.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'),
            "a hostname must contain only letters, digits, hyphens and dots",
        ),
        (|ascii| ascii.split('.').all(|label| !label.is_empty()), "a hostname must not have an empty label"),
        (
            |ascii| ascii.split('.').all(|label| label.len() <= 63),
            "a label of a hostname must have at most 63 characters",
        ),
        (|ascii| ascii.len() <= 253, "a hostname must have at most 253 characters"),
        (
            |ascii| !ascii.split('.').any(|label| label.starts_with('-') || label.ends_with('-')),
            "a label of a hostname must neither begin nor end with a hyphen",
        ),
        (|ascii| ascii.contains('.'), "a hostname must have at least two labels"),
        (is_stable, NOT_IDNA),
    ];

    /// Parses a hostname in any spelling and returns its canonical form.
    ///
    /// Uppercase letters, Unicode labels, full-width characters, an ideographic full stop between labels and one
    /// trailing dot are accepted.
    ///
    /// # Errors
    ///
    /// Returns the first rule that `text`, or its ASCII form, breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::parse_as("a hostname", text)
    }

    fn parse_as(what: &'static str, text: &str) -> Result<Self, NameError> {
        Self::canonical(text).map(Self).map_err(|rule| NameError::new(what, rule, text))
    }

    /// Returns the canonical form, or the rule that the text breaks.
    fn canonical(text: &str) -> Result<Arc<str>, &'static str> {
        first_broken(Self::RULES_AS_WRITTEN, text).map_or(Ok(()), Err)?;
        // The mapping is lenient on purpose. The rules below reject invalid names with a specific message.
        let mapped = Uts46::new()
            .to_ascii(text.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
            .map_err(|_unexplained| NOT_IDNA)?;
        let ascii = mapped.strip_suffix('.').unwrap_or(&mapped);
        first_broken(Self::RULES, ascii).map_or_else(|| Ok(ascii.into()), Err)
    }
}

const NOT_IDNA: &str = "each label of a hostname is valid in IDNA (UTS 46), and an xn-- label is the exact \
                       Punycode of a label that is not ASCII";

/// The hostnames of one site in the given order, and the canonical one, which identifies the site to visitors.
///
/// Invariants: 1 to 16 hostnames without duplicates; the canonical hostname is one of them. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hostnames {
    all: Arc<[Hostname]>,
    canonical: Hostname,
}

impl Hostnames {
    /// The maximum number of hostnames of a site.
    pub const MOST: usize = 16;

    /// Parses the hostnames of a site and its canonical hostname, each in any spelling.
    ///
    /// ```
    /// use cdm_core::domain::Hostnames;
    ///
    /// let hostnames = Hostnames::parse(&["Shop.Example.com", "münchen.example."], "shop.example.com")?;
    /// let all: Vec<_> = hostnames.all().iter().map(|host| host.as_str()).collect();
    /// assert_eq!(all, ["shop.example.com", "xn--mnchen-3ya.example"]);
    /// assert_eq!(hostnames.canonical().as_str(), "shop.example.com");
    /// # Ok::<(), cdm_core::domain::NameError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error for the first name that is not a valid [`Hostname`], exceeds the maximum number or is a
    /// duplicate, for a canonical hostname that is not among `names`, and for an empty list.
    pub fn parse(names: &[impl AsRef<str>], canonical: &str) -> Result<Self, NameError> {
        const KIND: &str = "a list of hostnames";
        if names.is_empty() {
            return Err(NameError::new(KIND, "a site must have at least one hostname", ""));
        }
        if let Some(excess) = names.get(Self::MOST) {
            return Err(NameError::new(KIND, "a site must have at most 16 hostnames", excess.as_ref()));
        }
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let index = all.len();
            let hostname = Hostname::parse(name.as_ref()).map_err(|error| error.at(index))?;
            if all.contains(&hostname) {
                let duplicate = NameError::new("a hostname", "a site has each hostname once", name.as_ref());
                return Err(duplicate.at(index));
            }
            all.push(hostname);
        }
        const CANONICAL: &str = "a canonical hostname";
        let hostname = Hostname::parse_as(CANONICAL, canonical)?;
        if !all.contains(&hostname) {
            let rule = "a canonical hostname must be one of the site's hostnames";
            return Err(NameError::new(CANONICAL, rule, canonical));
        }
        Ok(Self { all: all.into(), canonical: hostname })
    }

    /// Returns every hostname in the given order, including the canonical one.
    pub fn all(&self) -> &[Hostname] {
        &self.all
    }

    /// Returns the hostname of the site's own URL, which is one of [`Hostnames::all`].
    pub fn canonical(&self) -> &Hostname {
        &self.canonical
    }
}

/// Returns whether a name is an IP address: it has brackets, several colons (version 6), or a last label that is a
/// number by the WHATWG URL Standard, by which clients read `0x7f.1` as 127.0.0.1 ("ends in a number checker").
fn is_ip_literal(ascii: &str) -> bool {
    let last = ascii.rsplit('.').next().unwrap_or(ascii);
    let is_decimal = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    let is_hexadecimal =
        last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    ascii.contains(['[', ']']) || ascii.matches(':').count() > 1 || is_decimal || is_hexadecimal
}

fn is_punycode(label: &str) -> bool {
    label.starts_with("xn--")
}

/// Returns whether the strict mapping does not change a name, including through its Unicode form. Hyphens in the
/// third and fourth position are checked in `xn--` labels only, because IDNA reserves only those.
fn is_stable(ascii: &str) -> bool {
    const ENDS: Hyphens = Hyphens::CheckFirstLast;
    let uts46 = Uts46::new();
    let (unicode, verdict) = uts46.to_unicode(ascii.as_bytes(), AsciiDenyList::STD3, ENDS);
    let again = uts46.to_ascii(unicode.as_bytes(), AsciiDenyList::STD3, ENDS, DnsLength::Verify);
    let decoded = || ascii.split('.').zip(unicode.split('.'));
    let strict =
        |label: &str| uts46.to_unicode(label.as_bytes(), AsciiDenyList::STD3, Hyphens::Check).1.is_ok();
    verdict.is_ok()
        && ascii.split('.').filter(|label| is_punycode(label)).all(strict)
        && again.is_ok_and(|again| again == ascii)
        && decoded().all(|(label, shown)| is_punycode(label) != shown.is_ascii())
}
