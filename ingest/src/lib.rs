//! Package ingest.
