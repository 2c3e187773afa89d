//! Freezes: for a time nobody is moved, or some are not.

use super::{Actor, Fleet, NameError, SiteId, Timestamp};

/// A stop of moves, of all sites or of some.
///
/// A move is a promote, an upgrade, and what a rollout does to a site. What mends is none: deploys, rollbacks, returns,
/// aborts; nor is a site's creation, provision or end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// Its number, drawn like an operation's.
    pub number: u64,
    /// These sites; `None` for all.
    pub sites: Option<Vec<SiteId>>,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub by: Actor,
    /// Since when.
    pub at: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

impl Freeze {
    /// How many there may be at once.
    pub const MOST: usize = 100;
    /// How many sites all of them together may name.
    pub const MOST_SITES: usize = 2_000;
    /// Most characters of a reason.
    pub const LONGEST: usize = 500;

    /// Whether it holds at that moment.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now) && !crate::bug!(FreezeIgnored)
    }

    /// Whether it is of that site by name.
    pub fn names(&self, site: &SiteId) -> bool {
        self.sites.as_ref().is_some_and(|sites| sites.contains(site))
    }

    /// Checks a reason.
    ///
    /// # Errors
    /// An empty one, one of more than [`Freeze::LONGEST`] characters, one with a control character.
    pub fn reason(text: &str) -> Result<String, NameError> {
        let text = text.trim();
        let plain = !text.chars().any(char::is_control);
        if text.is_empty() || !plain || text.chars().count() > Self::LONGEST {
            return Err(NameError::new("a reason", "a reason is 1 to 500 printable characters", text));
        }
        Ok(text.to_owned())
    }

    /// What is said to whoever it stops.
    pub fn describe(&self) -> String {
        let whom = match &self.sites {
            None => "moves are frozen".to_owned(),
            Some(sites) if sites.len() == 1 => "moves of one site are frozen".to_owned(),
            Some(sites) => format!("moves of {} sites are frozen", sites.len()),
        };
        format!("{whom} by {}: {}", self.by, self.reason)
    }
}

impl Fleet {
    /// The freeze of every site, where there is one.
    pub fn frozen(&self, now: Timestamp) -> Option<&Freeze> {
        self.freezes.iter().find(|freeze| freeze.sites.is_none() && freeze.holds(now))
    }

    /// The freeze that stops a site's moves, its own or everyone's.
    pub fn freezes(&self, site: &SiteId, now: Timestamp) -> Option<&Freeze> {
        let stops = |freeze: &&Freeze| freeze.sites.is_none() || freeze.names(site);
        self.freezes.iter().find(|freeze| stops(freeze) && freeze.holds(now))
    }

    /// Adds a freeze; those that have ended are left out from now on.
    ///
    /// # Errors
    /// More than [`Freeze::MOST`], or more than [`Freeze::MOST_SITES`] named by all of them together.
    pub fn freeze(&mut self, freeze: Freeze, now: Timestamp) -> Result<(), NameError> {
        self.freezes.retain(|freeze| freeze.until.is_none_or(|until| until > now));
        let named = |freeze: &Freeze| freeze.sites.as_ref().map_or(0, Vec::len);
        let sites = self.freezes.iter().map(named).sum::<usize>() + named(&freeze);
        if self.freezes.len() >= Freeze::MOST || sites > Freeze::MOST_SITES {
            let rule = "at most 100 freezes, which name at most 2000 sites together";
            return Err(NameError::new("a freeze", rule, &freeze.reason));
        }
        self.freezes.push(freeze);
        Ok(())
    }
}
