//! Package lab.
