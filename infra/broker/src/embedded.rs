//! The broker in this process: queues as key ranges of the embedded engine.
