//! Freezes: periods in which all sites, or some sites, may not be moved.

use super::{Actor, Fleet, NameError, SiteId, Timestamp};

/// A stop of moves, for all sites or for some.
///
/// A freeze stops promotes, upgrades and the moves of rollouts. It does not stop deploys, rollbacks, the return of
/// sites by a rollout, or aborts, because those repair the platform; and it does not stop the creation, provisioning
/// or termination of a site.
///
/// ```
/// use cdm_core::domain::{Actor, Freeze, SiteId, Timestamp};
///
/// let shop = SiteId::parse("shop")?;
/// let freeze = Freeze {
///     number: 7,
///     sites: Some(vec![shop.clone()]),
///     reason: Freeze::reason("  release night ")?,
///     by: Actor::parse("ops")?,
///     at: Timestamp::from_millis(0),
///     until: Some(Timestamp::from_millis(60_000)),
/// };
/// assert!(freeze.names(&shop));
/// assert!(freeze.holds(Timestamp::from_millis(59_999)));
/// assert!(!freeze.holds(Timestamp::from_millis(60_000)));
/// assert_eq!(freeze.describe(), "moves of one site are frozen by ops: release night");
/// # Ok::<(), cdm_core::domain::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// The freeze's number, allocated like an operation's.
    pub number: u64,
    /// The frozen sites; `None` freezes all sites.
    pub sites: Option<Vec<SiteId>>,
    /// Why moves are frozen, for users.
    pub reason: String,
    /// The actor that created the freeze.
    pub by: Actor,
    /// When the freeze was created.
    pub at: Timestamp,
    /// When the freeze ends by itself; `None` if a user has to remove it.
    pub until: Option<Timestamp>,
}

impl Freeze {
    /// The maximum number of freezes at the same time.
    pub const MOST: usize = 100;
    /// The maximum number of sites that all freezes together may name.
    pub const MOST_SITES: usize = 2_000;
    /// The maximum length of a reason in characters.
    pub const LONGEST: usize = 500;

    /// Returns whether the freeze is in force at `now`.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now) && !crate::bug!(FreezeIgnored)
    }

    /// Returns whether the freeze lists this site. A freeze of all sites lists none.
    pub fn names(&self, site: &SiteId) -> bool {
        self.sites.as_ref().is_some_and(|sites| sites.contains(site))
    }

    /// Validates a reason and removes leading and trailing white space.
    ///
    /// # Errors
    /// Returns an error for an empty reason, a reason of more than [`Freeze::LONGEST`] characters, and a control
    /// character.
    pub fn reason(text: &str) -> Result<String, NameError> {
        let text = text.trim();
        let printable = !text.chars().any(char::is_control);
        if text.is_empty() || !printable || text.chars().count() > Self::LONGEST {
            return Err(NameError::new("a reason", "a reason must be 1 to 500 printable characters", text));
        }
        Ok(text.to_owned())
    }

    /// Returns the message for a caller that the freeze stops.
    pub fn describe(&self) -> String {
        let scope = match &self.sites {
            None => "moves are frozen".to_owned(),
            Some(sites) if sites.len() == 1 => "moves of one site are frozen".to_owned(),
            Some(sites) => format!("moves of {} sites are frozen", sites.len()),
        };
        format!("{scope} by {}: {}", self.by, self.reason)
    }
}

impl Fleet {
    /// Returns a freeze of all sites that is in force at `now`, if there is one.
    pub fn frozen(&self, now: Timestamp) -> Option<&Freeze> {
        self.freezes.iter().find(|freeze| freeze.sites.is_none() && freeze.holds(now))
    }

    /// Returns a freeze that stops moves of this site at `now`: one of all sites, or one that names the site.
    pub fn freezes(&self, site: &SiteId, now: Timestamp) -> Option<&Freeze> {
        let stops = |freeze: &&Freeze| freeze.sites.is_none() || freeze.names(site);
        self.freezes.iter().find(|freeze| stops(freeze) && freeze.holds(now))
    }

    /// Adds a freeze and removes those that have ended.
    ///
    /// # Errors
    /// Returns an error if there are more than [`Freeze::MOST`] freezes, or if all of them together name more than
    /// [`Freeze::MOST_SITES`] sites.
    pub fn freeze(&mut self, freeze: Freeze, now: Timestamp) -> Result<(), NameError> {
        self.freezes.retain(|freeze| freeze.until.is_none_or(|until| until > now));
        let named = |freeze: &Freeze| freeze.sites.as_ref().map_or(0, Vec::len);
        let sites = self.freezes.iter().map(named).sum::<usize>() + named(&freeze);
        if self.freezes.len() >= Freeze::MOST || sites > Freeze::MOST_SITES {
            let rule = "a platform has at most 100 freezes, which name at most 2000 sites in total";
            return Err(NameError::new("a freeze", rule, &freeze.reason));
        }
        self.freezes.push(freeze);
        Ok(())
    }
}
