//! The promises of the store as a test suite.
