//! Filled in by the adapters that it is about.
