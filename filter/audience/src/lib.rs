//! Package audience.
