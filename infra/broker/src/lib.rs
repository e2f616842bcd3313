//! Package broker.
