//! The REST server over `cdm-core`: requests in, one service call each, answers out. Empty for now: nothing of it is
//! built yet.
