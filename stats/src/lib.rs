//! Package stats.
