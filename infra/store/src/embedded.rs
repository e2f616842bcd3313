//! The store in this process, on the embedded engine.
