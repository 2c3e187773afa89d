//! Tests of the whole house: what several crates show together and no single one alone. Empty for now: so far
//! everything is tested beside the crate that it is about.
