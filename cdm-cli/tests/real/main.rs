//! The real `cdm` against a real server on a free port: what a person types, what a script reads, what the exit code is.

mod commands;
mod deleting;
mod endings;
mod incident;
mod interrupt;
mod look;
mod newcomer;
mod pages;
mod place;
mod story;
