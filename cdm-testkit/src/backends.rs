//! Backends that a test runs against only if the environment names them; without them, the test is skipped.
//!
//! The test harness counts a skipped test as passed. [`skip`] therefore prints a line for each, and `tests/run` subtracts
//! these tests from those that passed.

#![expect(clippy::disallowed_methods, reason = "the environment names the backends")]

use std::env;
use std::thread;

/// Prints that the calling test is skipped, with the name of the test and the reason. Must be called on the thread of the
/// test.
#[expect(clippy::print_stdout, reason = "the printed line is counted by `tests/run`")]
pub fn skip(reason: &str) {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let program = env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.file_stem()?.to_str()).unwrap_or_default();
    let thread = thread::current();
    let test = thread.name().unwrap_or_default();
    println!("skipped: {package}/{program}/{test}: {reason}");
}

/// Returns the address of a backend that `tests/parts` starts. Skips the test and returns `None` if the backend was not
/// started and is not required.
///
/// # Panics
/// If backends are required (`CDM_PARTS=required`), and this one is missing.
pub fn address(variable: &str) -> Option<String> {
    let address = env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        let required = env::var("CDM_PARTS").is_ok_and(|wanted| wanted == "required");
        assert!(!required, "{variable} names no backend; ./tests/run starts it");
        skip(&format!("{variable} names no backend; ./tests/run starts it"));
    }
    address
}

/// Returns the value of an optional variable. Skips the test and returns `None` if the variable is not set.
pub fn optional(variable: &str) -> Option<String> {
    let value = env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        skip(&format!("{variable} is not set"));
    }
    value
}

/// Returns whether the tests may use the AWS account of the environment: `CDM_TEST_AWS=1`. Skips the test otherwise.
pub fn has_aws_account() -> bool {
    let permitted = env::var("CDM_TEST_AWS").is_ok_and(|value| value == "1");
    if !permitted {
        skip("CDM_TEST_AWS is not 1");
    }
    permitted
}
