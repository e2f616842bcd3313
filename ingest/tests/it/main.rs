//! Ingest over real HTTP, on the embedded back ends in a temporary directory.
#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod answers;
mod audiences;
mod auth;
mod callbacks;
mod commands;
mod connections;
mod contract;
mod logs;
mod messages;
mod nodes;
mod once;
mod openapi;
mod problems;
mod profiles;
mod quiet;
mod registry;
mod sandbox;
mod sends;
mod types;
mod unavailable;
mod uplinks;
