//! The real `cdm` against a real server on a free port: input, output and exit codes.

mod commands;
mod exit_codes;
mod first_use;
mod help;
mod incident;
mod interrupt;
mod story;
mod terminal;
mod test_env;
