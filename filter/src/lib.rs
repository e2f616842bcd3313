//! Package filter.
