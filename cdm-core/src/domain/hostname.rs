//! Hostnames in the one form in which they are compared and claimed, whatever their spelling.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::name::{NameError, Rule, first_broken, text_impls};

/// The canonical name of a host, in ASCII.
///
/// Invariants: UTS 46 (non-transitional) maps it to itself; lower case; letters, digits and inner hyphens in
/// two or more labels of 1 to 63 characters; at most 253 characters (RFC 1035), no dot at the end; no
/// wildcard, port or IP address, that is, no last label that the WHATWG URL Standard takes for a number; an
/// `xn--` label is the exact Punycode of a label that is not ASCII (CVE-2024-12224). Other labels with hyphens third and
/// fourth are plain ASCII names, which exist (`r3---sn.example.com`). Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

text_impls!(Hostname);

impl Hostname {
    /// Judged before anything is spent on the input. Soft hyphens and the like, ignored later, count here.
    const RULES_AS_WRITTEN: &[Rule] = &[
        (|text| !text.is_empty(), "a hostname is not empty"),
        (|text| text.len() <= 1024, "a hostname is written in at most 1024 bytes"),
        (|text| !text.contains("://"), "a hostname has no scheme: leave out all up to and including `://`"),
        (
            |text| !text.contains(['/', '?', '#']),
            "a hostname has no path and no query: leave out the first `/`, `?` or `#` and all after it",
        ),
    ];

    /// Judged on the ASCII form, so that no full-width or otherwise mapped spelling gets around them.
    const RULES: &[Rule] = &[
        (|ascii| !ascii.contains('*'), "a hostname is not a wildcard"),
        (|ascii| !is_ip_literal(ascii), "a hostname is not an IP address"),
        (|ascii| !ascii.contains(':'), "a hostname has no port: leave out the `:` and all after it"),
        (
            |ascii| ascii.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'),
            "a hostname holds only letters, digits, hyphens and dots",
        ),
        (|ascii| ascii.split('.').all(|label| !label.is_empty()), "a hostname has no empty label"),
        (
            |ascii| ascii.split('.').all(|label| label.len() <= 63),
            "a label of a hostname has at most 63 characters",
        ),
        (|ascii| ascii.len() <= 253, "a hostname has at most 253 characters"),
        (
            |ascii| !ascii.split('.').any(|label| label.starts_with('-') || label.ends_with('-')),
            "a label of a hostname neither begins nor ends with a hyphen",
        ),
        (|ascii| ascii.contains('.'), "a hostname has at least two labels"),
        (is_stable, UNSOUND),
    ];

    /// Parses a hostname in any of its spellings and keeps the canonical one.
    ///
    /// Upper case, Unicode labels, full-width characters, an ideographic full stop between labels and one dot
    /// at the end are not errors.
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

    /// Returns the canonical form, or the rule in its way.
    fn canonical(text: &str) -> Result<Arc<str>, &'static str> {
        first_broken(Self::RULES_AS_WRITTEN, text).map_or(Ok(()), Err)?;
        // Lenient on purpose: it only maps. What it lets pass is refused below by a rule that can be named.
        let mapped = Uts46::new()
            .to_ascii(text.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
            .map_err(|_unexplained| UNSOUND)?;
        let ascii = mapped.strip_suffix('.').unwrap_or(&mapped);
        first_broken(Self::RULES, ascii).map_or_else(|| Ok(ascii.into()), Err)
    }
}

const UNSOUND: &str = "each label of a hostname is valid in IDNA (UTS 46), and an xn-- label is the exact \
                       Punycode of a label that is not ASCII";

/// The hostnames of one site, in the order given, and the one of them that the others stand in for.
///
/// Invariants: 1 to 16 names, no two the same once canonical; the canonical one is among them. Cloning is
/// cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hostnames {
    all: Arc<[Hostname]>,
    canonical: Hostname,
}

impl Hostnames {
    /// Most hostnames that one site may have.
    pub const MOST: usize = 16;

    /// Parses the hostnames of a site and its canonical hostname; either may be in any spelling.
    ///
    /// # Errors
    ///
    /// Returns the first name that breaks a rule: one that is no [`Hostname`], one too many, one given twice,
    /// or a canonical one that is not among `names`. No names at all is an error too.
    pub fn parse(names: &[impl AsRef<str>], canonical: &str) -> Result<Self, NameError> {
        const WHAT: &str = "a list of hostnames";
        if names.is_empty() {
            return Err(NameError::new(WHAT, "a site has at least one hostname", ""));
        }
        if let Some(excess) = names.get(Self::MOST) {
            return Err(NameError::new(WHAT, "a site has at most 16 hostnames", excess.as_ref()));
        }
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let place = all.len();
            let hostname = Hostname::parse(name.as_ref()).map_err(|refused| refused.at(place))?;
            if all.contains(&hostname) {
                let twice = NameError::new("a hostname", "a site has each hostname once", name.as_ref());
                return Err(twice.at(place));
            }
            all.push(hostname);
        }
        const CANONICAL: &str = "a canonical hostname";
        let hostname = Hostname::parse_as(CANONICAL, canonical)?;
        if !all.contains(&hostname) {
            let rule = "a canonical hostname is one of the site's hostnames";
            return Err(NameError::new(CANONICAL, rule, canonical));
        }
        Ok(Self { all: all.into(), canonical: hostname })
    }

    /// Returns every hostname, the canonical one included, in the order given.
    pub fn all(&self) -> &[Hostname] {
        &self.all
    }

    /// Returns the canonical hostname.
    pub fn canonical(&self) -> &Hostname {
        &self.canonical
    }
}

/// Tells an address by its brackets, by several colons (version 6), or by a last label that is a number in
/// the WHATWG URL Standard, by which clients read `0x7f.1` as 127.0.0.1 ("ends in a number checker").
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

/// Tells whether the strict mapping leaves a name alone, also by way of its Unicode form. Hyphens third and fourth are
/// judged in `xn--` labels alone: these are IDNA's, the others are not.
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
