//! How many streams each person has open, so that one with many tabs leaves some to others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdm_core::domain::UserName;

/// How many one person may have.
const MOST: usize = 32;

/// The streams of everyone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats(Arc<Mutex<HashMap<UserName, usize>>>);

/// A stream of somebody's, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    seats: Seats,
    name: UserName,
}

impl Seats {
    /// One more stream for somebody; `None` when they have as many as they may.
    pub(crate) fn take(&self, name: &UserName) -> Option<Taken> {
        let mut all = self.lock();
        let theirs = all.entry(name.clone()).or_default();
        if *theirs >= MOST {
            return None;
        }
        *theirs += 1;
        Some(Taken { seats: self.clone(), name: name.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.seats.lock();
        if let Some(theirs) = all.get_mut(&self.name) {
            *theirs -= 1;
            if *theirs == 0 {
                all.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_persons_streams_are_not_anothers() {
        let name = |text: &str| UserName::parse(text).expect("a user name");
        let seats = Seats::default();
        let mut taken: Vec<_> = (0..MOST).map(|_| seats.take(&name("ada")).expect("room")).collect();
        assert!(seats.take(&name("ada")).is_none());
        assert!(seats.take(&name("bob")).is_some());
        taken.pop();
        assert!(seats.take(&name("ada")).is_some());
        taken.clear();
        assert!(seats.lock().is_empty(), "nobody is remembered");
    }
}
