//! Tests that involve several crates of the workspace. There are none yet: each test so far is in the crate that it tests.
