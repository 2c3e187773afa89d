//! The command line over `cdm-core`: arguments in, one service call each, tables or JSON out. Empty for now: nothing of
//! it is built yet.
