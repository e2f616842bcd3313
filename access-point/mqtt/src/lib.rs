//! Package mqtt.
