//! Package access-point.
