//! The records that operations live in. This is the only file of the engine that tells them apart.

use super::pipeline::Change;
use crate::domain::lifecycle::Illegal;
use crate::domain::operation::{Operation, Slot, Status, Subject};
use crate::domain::{Colour, End, Fleet, Site, Timestamp};
use crate::ports::{Ports, StoreError, Write};

/// A record with a place for one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A site.
    Site(Box<Site>),
    /// A colour.
    Colour(Box<Colour>),
    /// The platform.
    Fleet(Box<Fleet>),
}

impl Record {
    /// Reads a record; `None` when the site is gone.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn read(ports: &Ports, subject: &Subject) -> Result<Option<Self>, StoreError> {
        Ok(match subject {
            Subject::Site(id) => ports.store.site(id).await?.map(|site| Self::Site(Box::new(site))),
            Subject::Colour(selector) => Some(Self::Colour(Box::new(ports.store.colour(*selector).await?))),
            Subject::Fleet => Some(Self::Fleet(Box::new(ports.store.fleet().await?))),
        })
    }

    /// What it is a record of.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Site(site) => Subject::Site(site.id.clone()),
            Self::Colour(colour) => Subject::Colour(colour.selector),
            Self::Fleet(_) => Subject::Fleet,
        }
    }

    /// The operation in it.
    pub fn slot(&self) -> Option<&Slot> {
        match self {
            Self::Site(site) => site.slot.as_ref(),
            Self::Colour(colour) => colour.slot.as_ref(),
            Self::Fleet(fleet) => fleet.slot.as_ref(),
        }
    }

    pub(crate) fn set_slot(&mut self, slot: Option<Slot>) {
        match self {
            Self::Site(site) => site.slot = slot,
            Self::Colour(colour) => colour.slot = slot,
            Self::Fleet(fleet) => fleet.slot = slot,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Site(site) => site.version,
            Self::Colour(colour) => colour.version,
            Self::Fleet(fleet) => fleet.version,
        }
    }

    pub(crate) fn set_version(&mut self, version: u64) {
        match self {
            Self::Site(site) => site.version = version,
            Self::Colour(colour) => colour.version = version,
            Self::Fleet(fleet) => fleet.version = version,
        }
    }

    pub(crate) fn apply(&mut self, change: &Change, now: Timestamp) {
        match (self, change) {
            (Self::Site(site), Change::Site(change)) => {
                site.apply(change);
                site.updated_at = now;
            }
            (Self::Colour(colour), Change::Colour(change)) => colour.apply(change),
            (Self::Site(_) | Self::Colour(_) | Self::Fleet(_), _) => {}
        }
    }

    /// The write that stores it as it is, over the version that it was read with.
    pub(crate) fn write(self) -> Write {
        match self {
            Self::Site(site) => Write::Site(site),
            Self::Colour(colour) => Write::Colour(colour),
            Self::Fleet(fleet) => Write::Fleet(fleet),
        }
    }

    /// The record as it is once that write was applied; `None` for a write that leaves no record with an operation.
    pub(crate) fn written(write: Write) -> Option<Self> {
        let mut record = match write {
            Write::Site(site) => Self::Site(site),
            Write::Colour(colour) => Self::Colour(colour),
            Write::Fleet(fleet) => Self::Fleet(fleet),
            Write::CreateSite(_)
            | Write::RemoveSite(..)
            | Write::CreateRollout(_)
            | Write::Rollout(_)
            | Write::RolloutPage(_)
            | Write::Webhooks(_)
            | Write::Users(_)
            | Write::History(_) => return None,
        };
        record.set_version(record.version() + 1);
        Some(record)
    }

    /// The writes that take its operation out: the record without it, or no record any more, and the history.
    ///
    /// # Errors
    /// [`Illegal`] when the site's state does not take that end.
    pub(crate) fn rest(mut self, end: End, now: Timestamp) -> Result<Vec<Write>, Illegal> {
        let mut writes = Vec::with_capacity(2);
        let subject = self.subject();
        if let Some(mut slot) = self.slot().cloned() {
            slot.status = Status::Ended(end);
            slot.owner = None;
            slot.wake = None;
            let history = Operation { finished_at: Some(now), ..Operation::live(subject, slot) };
            writes.push(Write::History(Box::new(history)));
        }
        self = match self {
            Self::Site(site) => {
                let (id, uid, version) = (site.id.clone(), site.uid, site.version);
                match site.end(end, now)? {
                    Some(site) => Self::Site(Box::new(site)),
                    None => {
                        writes.insert(0, Write::RemoveSite(id, uid, version));
                        return Ok(writes);
                    }
                }
            }
            Self::Colour(_) | Self::Fleet(_) => {
                self.set_slot(None);
                self
            }
        };
        writes.insert(0, self.write());
        Ok(writes)
    }
}
