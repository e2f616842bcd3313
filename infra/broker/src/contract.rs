//! The promises of Broker.
