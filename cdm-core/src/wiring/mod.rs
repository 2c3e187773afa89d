//! Builds everything from configuration.
