//! Searching sites by text, the same way in every store: names without case, hostnames in ASCII and in Unicode.

use idna::uts46::{AsciiDenyList, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;

use super::Site;

/// What is looked for.
///
/// It matches a site whose [`SearchText`] contains either form. Case is ignored (Unicode's simple case folding, after
/// NFC), and so is the spelling of a hostname: `MÜNCHEN`, `xn--mnchen-3ya` and a full-width dot find the same sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchTerm {
    /// As a part of an id or a name, or of a hostname in ASCII.
    folded: String,
    /// As a part of a hostname in Unicode; the same as `folded` where the text maps to nothing else.
    mapped: String,
}

impl SearchTerm {
    /// The term that a person typed.
    pub fn of(text: &str) -> Self {
        let folded = folded(text);
        let mapped = displayed(text.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(text));
        let mapped = mapped.filter(|mapped| !mapped.is_empty()).unwrap_or_else(|| folded.clone());
        Self { folded, mapped }
    }

    /// Both forms: a text matches that contains one of them.
    pub fn forms(&self) -> [&str; 2] {
        [&self.folded, &self.mapped]
    }

    /// Whether a site matches.
    pub fn matches(&self, text: &SearchText) -> bool {
        self.forms().iter().any(|form| text.0.contains(form))
    }
}

/// What of a site is searched: id, name and hostnames, in the form that a [`SearchTerm`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchText(String);

impl SearchText {
    /// Of a site.
    pub fn of(site: &Site) -> Self {
        let hosts = site.hostnames.all().iter().map(|host| host.as_str());
        Self::from_parts(site.id.as_str(), site.name.as_str(), hosts)
    }

    /// Of what a store has kept of a site: its id, its name and its canonical hostnames.
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

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A hostname, or a part of one, as people read it: mapped by UTS 46, `xn--` labels decoded.
fn displayed(host: &str) -> Option<String> {
    let (shown, verdict) = Uts46::new().to_unicode(host.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow);
    verdict.is_ok().then(|| shown.into_owned())
}

/// A text without case: each character by Unicode's simple case folding (`CaseFolding.txt`, statuses C and S), in NFC.
fn folded(text: &str) -> String {
    text.nfc().map(fold).nfc().collect()
}

/// The simple folding of a character, by the standard library's mappings: through its upper case, so that `ς` and `σ`, or
/// `ſ` and `s`, are one; a mapping to several characters is no simple one. The dotless `ı` alone has an upper case whose
/// lower case is another letter, and folds to itself.
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
