//! Package dispatcher.
