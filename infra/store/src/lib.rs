//! Package store.
