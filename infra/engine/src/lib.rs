//! Package engine.
