//! Random numbers and ids from a seed, so that a failed run can be repeated exactly.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdm_core::domain::{Timestamp, Uid};
use cdm_core::ports::{Entropy, WriteId};
use secrecy::SecretString;

/// Prefix of every password from [`SeededIds`]. Tests search for this prefix where a secret must not appear.
pub const SECRET_MARKER: &str = "s3cr3t-";

/// The 64 characters of a password; six random bits choose one.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
/// Number of random characters in a password: 192 bits.
const LENGTH: usize = 32;

/// A small pseudo-random number generator: SplitMix64 (Steele, Lea and Flood, 2014).
///
/// The generator is good enough for choosing what a campaign does next. Never use it for a real secret.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Creates a generator. Equal seeds produce equal sequences.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64-bit number; all numbers are equally likely.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `n`, or 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Returns `true` with probability `p`: never for 0, always for 1.
    pub fn chance(&mut self, p: f64) -> bool {
        self.fraction() < p
    }

    /// Returns a number in the half-open range from 0 to 1, with the 53 bits of precision of an `f64`.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Uids, passwords and write ids from a seed. Clones draw from the same source.
///
/// Write ids are 1, 2, 3, …, so two sources return the same ids: all writers of one store must use one source.
#[derive(Clone, Debug)]
pub struct SeededIds(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rng: Rng,
    writes: u64,
}

impl SeededIds {
    /// Creates a source. Equal seeds and equal calls return equal ids.
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
    fn the_generator_matches_the_published_one() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!([rng.next(), rng.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_password_has_the_marker_and_safe_characters() {
        let password = SeededIds::new(3).password();
        let random = password.expose_secret().strip_prefix(SECRET_MARKER).expect("the marker");
        assert_eq!(random.len(), LENGTH);
        assert!(random.bytes().all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn chance_is_never_at_0_and_always_at_1() {
        let mut rng = Rng::new(0);
        assert!((0..1_000).all(|_| rng.chance(1.0) && !rng.chance(0.0) && rng.below(3) < 3));
        assert_eq!(rng.below(0), 0);
    }
}
