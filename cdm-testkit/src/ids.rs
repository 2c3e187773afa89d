//! Chance from a seed, so that a run that failed can be run again exactly as it was.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdm_core::domain::{Timestamp, Uid};
use cdm_core::ports::{Entropy, WriteId};
use secrecy::SecretString;

/// What every password of [`SeededIds`] begins with: a test looks for it wherever a secret must not be.
pub const SECRET_MARKER: &str = "s3cr3t-";

/// The 64 characters that a password may be of; six random bits choose one.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
/// Random characters in a password: 192 bits.
const LENGTH: usize = 32;

/// A small generator of pseudo-random numbers: SplitMix64 (Steele, Lea and Flood, 2014).
///
/// Good enough to choose what a campaign does next; never to be used for a real secret.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator; the same seed gives the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, each of the 64-bit ones as likely as the other.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Whether something of probability `p` happens: never for 0, always for 1.
    pub fn chance(&mut self, p: f64) -> bool {
        self.fraction() < p
    }

    /// A number from 0 up to, not including, 1, with the 53 bits that an `f64` holds.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Uids, passwords and write ids from a seed; clones draw from the same source.
///
/// Write ids are 1, 2, 3, …, so two sources share them: everything that writes to one store draws from one source.
#[derive(Clone, Debug)]
pub struct SeededIds(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: Rng,
    writes: u64,
}

impl SeededIds {
    /// A source; the same seed and the same calls give the same ids.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { rng: Rng::new(seed), writes: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entropy for SeededIds {
    fn uid(&self, now: Timestamp) -> Uid {
        let rng = &mut self.lock().rng;
        let random = u128::from(rng.next()) << 64 | u128::from(rng.next());
        Uid::from_parts(now.millis(), random)
    }

    fn password(&self) -> SecretString {
        let rng = &mut self.lock().rng;
        let mut password = String::with_capacity(SECRET_MARKER.len() + LENGTH);
        password.push_str(SECRET_MARKER);
        password.extend((0..LENGTH).map(|_| char::from(ALPHABET[(rng.next() >> 58) as usize])));
        password.into()
    }

    fn write(&self) -> WriteId {
        let mut state = self.lock();
        state.writes += 1;
        WriteId(state.writes)
    }

    fn jitter(&self) -> f64 {
        self.lock().rng.fraction()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_ids() {
        let now = Timestamp::from_millis(1);
        let draw = |seed| {
            let ids = SeededIds::new(seed);
            (ids.uid(now), ids.password().expose_secret().to_owned(), ids.write(), ids.jitter())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn the_generator_is_the_published_one() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!([rng.next(), rng.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_password_is_marked_long_and_harmless_in_a_statement() {
        let password = SeededIds::new(3).password();
        let random = password.expose_secret().strip_prefix(SECRET_MARKER).expect("the marker");
        assert_eq!(random.len(), LENGTH);
        assert!(random.bytes().all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn chance_keeps_its_ends() {
        let mut rng = Rng::new(0);
        assert!((0..1_000).all(|_| rng.chance(1.0) && !rng.chance(0.0) && rng.below(3) < 3));
        assert_eq!(rng.below(0), 0);
    }
}
