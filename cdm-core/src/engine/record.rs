//! The records that contain operations. Only this file of the engine distinguishes between their kinds.

use super::pipeline::Change;
use crate::domain::lifecycle::Illegal;
use crate::domain::operation::{Operation, OperationState, Status, Subject};
use crate::domain::{Fleet, Service, Site, TerminalStatus, Timestamp};
use crate::ports::{Mutation, Ports, StoreError};

/// A record that can contain one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The record of a site.
    Site(Box<Site>),
    /// The record of a service.
    Service(Box<Service>),
    /// The record of the fleet.
    Fleet(Box<Fleet>),
}

impl Record {
    /// Reads a record. Returns `None` if the site does not exist.
    ///
    /// # Errors
    /// An error of the store.
    pub async fn read(ports: &Ports, subject: &Subject) -> Result<Option<Self>, StoreError> {
        Ok(match subject {
            Subject::Site(id) => ports.store.site(id).await?.map(|site| Self::Site(Box::new(site))),
            Subject::Service(color) => Some(Self::Service(Box::new(ports.store.service(*color).await?))),
            Subject::Fleet => Some(Self::Fleet(Box::new(ports.store.fleet().await?))),
        })
    }

    /// Returns the subject by which [`Record::read`] finds the record.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Site(site) => Subject::Site(site.id.clone()),
            Self::Service(service) => Subject::Service(service.color),
            Self::Fleet(_) => Subject::Fleet,
        }
    }

    /// Returns the operation that the record contains.
    pub fn operation(&self) -> Option<&OperationState> {
        match self {
            Self::Site(site) => site.operation.as_ref(),
            Self::Service(service) => service.operation.as_ref(),
            Self::Fleet(fleet) => fleet.operation.as_ref(),
        }
    }

    pub(crate) fn set_operation(&mut self, operation: Option<OperationState>) {
        match self {
            Self::Site(site) => site.operation = operation,
            Self::Service(service) => service.operation = operation,
            Self::Fleet(fleet) => fleet.operation = operation,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Site(site) => site.version,
            Self::Service(service) => service.version,
            Self::Fleet(fleet) => fleet.version,
        }
    }

    pub(crate) fn set_version(&mut self, version: u64) {
        match self {
            Self::Site(site) => site.version = version,
            Self::Service(service) => service.version = version,
            Self::Fleet(fleet) => fleet.version = version,
        }
    }

    pub(crate) fn apply(&mut self, change: &Change, now: Timestamp) {
        match (self, change) {
            (Self::Site(site), Change::Site(change)) => {
                site.apply(change);
                site.updated_at = now;
            }
            (Self::Service(service), Change::Service(change)) => service.apply(change),
            (Self::Site(_) | Self::Service(_) | Self::Fleet(_), _) => {}
        }
    }

    /// Returns the write that replaces the version that was read.
    pub(crate) fn write(self) -> Mutation {
        match self {
            Self::Site(site) => Mutation::Site(site),
            Self::Service(service) => Mutation::Service(service),
            Self::Fleet(fleet) => Mutation::Fleet(fleet),
        }
    }

    /// Returns the record after an applied write. Returns `None` for a write of another kind of record, and for a
    /// deletion.
    pub(crate) fn written(write: Mutation) -> Option<Self> {
        let mut record = match write {
            Mutation::Site(site) => Self::Site(site),
            Mutation::Service(service) => Self::Service(service),
            Mutation::Fleet(fleet) => Self::Fleet(fleet),
            Mutation::CreateSite(_)
            | Mutation::RemoveSite(..)
            | Mutation::CreateRollout(_)
            | Mutation::Rollout(_)
            | Mutation::RolloutPage(_)
            | Mutation::Webhooks(_)
            | Mutation::Users(_)
            | Mutation::History(_) => return None,
        };
        record.set_version(record.version() + 1);
        Some(record)
    }

    /// Returns the writes that end the operation: the record without it, or the deletion of the record, and the entry in
    /// the history.
    ///
    /// # Errors
    /// [`Illegal`] if this end is not possible in the state of the site.
    pub(crate) fn finish(mut self, end: TerminalStatus, now: Timestamp) -> Result<Vec<Mutation>, Illegal> {
        let mut writes = Vec::with_capacity(2);
        let subject = self.subject();
        if let Some(mut operation) = self.operation().cloned() {
            operation.status = Status::Ended(end);
            operation.owner = None;
            operation.next_poll_at = None;
            let history = Operation { finished_at: Some(now), ..Operation::live(subject, operation) };
            writes.push(Mutation::History(Box::new(history)));
        }
        self = match self {
            Self::Site(site) => {
                let (id, uid, version) = (site.id.clone(), site.uid, site.version);
                match site.end(end, now)? {
                    Some(site) => Self::Site(Box::new(site)),
                    None => {
                        writes.insert(0, Mutation::RemoveSite(id, uid, version));
                        return Ok(writes);
                    }
                }
            }
            Self::Service(_) | Self::Fleet(_) => {
                self.set_operation(None);
                self
            }
        };
        writes.insert(0, self.write());
        Ok(writes)
    }
}
