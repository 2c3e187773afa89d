//! Text search over sites, with the same result in every store: names ignore case, hostnames match in ASCII and
//! Unicode.

use idna::uts46::{AsciiDenyList, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;

use super::Site;

/// A text to search for.
///
/// A term matches a site if the site's [`SearchText`] contains either form of the term. Case is ignored (Unicode's
/// simple case folding, after NFC), and so is the spelling of a hostname: `MÜNCHEN`, `xn--mnchen-3ya` and a
/// full-width dot find the same sites.
///
/// ```
/// use cdm_core::domain::search::{SearchTerm, SearchText};
///
/// let site = SearchText::from_parts("shop", "Kiosk am Rathaus", ["xn--mnchen-3ya.example"]);
/// assert!(SearchTerm::of("RATHAUS").matches(&site));
/// assert!(SearchTerm::of("MÜNCHEN.").matches(&site));
/// assert!(!SearchTerm::of("bakery").matches(&site));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchTerm {
    /// The form that matches part of an id, a name or an ASCII hostname.
    folded: String,
    /// The form that matches part of a Unicode hostname; equal to `folded` if the text has no other mapping.
    mapped: String,
}

impl SearchTerm {
    /// Creates the term from the text that a user typed.
    pub fn of(text: &str) -> Self {
        let folded = folded(text);
        let mapped = displayed(text.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(text));
        let mapped = mapped.filter(|mapped| !mapped.is_empty()).unwrap_or_else(|| folded.clone());
        Self { folded, mapped }
    }

    /// Returns both forms. A text matches if it contains one of them.
    pub fn forms(&self) -> [&str; 2] {
        [&self.folded, &self.mapped]
    }

    /// Returns whether the term matches a site's text.
    pub fn matches(&self, text: &SearchText) -> bool {
        self.forms().iter().any(|form| text.0.contains(form))
    }
}

/// The searchable text of a site: id, name and hostnames, in the same form as a [`SearchTerm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchText(String);

impl SearchText {
    /// Returns the text of a site.
    pub fn of(site: &Site) -> Self {
        let hosts = site.hostnames.all().iter().map(|host| host.as_str());
        Self::from_parts(site.id.as_str(), site.name.as_str(), hosts)
    }

    /// Returns the text for parts that a store keeps: the id, the name and the canonical hostnames.
    pub fn from_parts<'a>(id: &str, name: &str, hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut text = format!("{id}\n{}", folded(name));
        for host in hosts {
            text.push('\n');
            text.push_str(host);
            if let Some(shown) = displayed(host).filter(|shown| shown != host) {
                text.push('\n');
                text.push_str(&shown);
            }
        }
        Self(text)
    }

    /// Returns the text for storage.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns a hostname, or a part of one, in its Unicode form: mapped by UTS 46, with decoded `xn--` labels. Returns
/// `None` if the mapping fails.
fn displayed(host: &str) -> Option<String> {
    let (shown, verdict) = Uts46::new().to_unicode(host.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow);
    verdict.is_ok().then(|| shown.into_owned())
}

/// Folds the case of a text: each character by Unicode's simple case folding (`CaseFolding.txt`, statuses C and S),
/// in NFC.
fn folded(text: &str) -> String {
    text.nfc().map(fold).nfc().collect()
}

/// Returns the simple case folding of a character, computed with the standard library's mappings through upper case,
/// so that `ς` and `σ`, or `ſ` and `s`, are equal. A mapping to several characters is not simple and is ignored. The
/// dotless `ı` folds to itself, because its upper case has another lower case.
fn fold(character: char) -> char {
    if character == 'ı' {
        return character;
    }
    let upper = only(character.to_uppercase()).unwrap_or(character);
    only(upper.to_lowercase()).unwrap_or(upper)
}

fn only(mut mapped: impl Iterator<Item = char>) -> Option<char> {
    let first = mapped.next()?;
    mapped.next().is_none().then_some(first)
}
