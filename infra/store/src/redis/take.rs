//! Taking answers apart. What is not there where it must be is damage: scripts and keys are ours alone.

use deadpool_redis::redis::{FromRedisValue, Value, from_redis_value};
use model::record::Record;

use crate::Error;

/// The only answer.
pub(super) fn only(mut answers: Vec<Value>) -> Result<Value, Error> {
    answers.pop().ok_or_else(|| Error::Unavailable("Redis: an answer is missing".into()))
}

/// An answer as a value of this type.
pub(super) fn value<T: FromRedisValue>(answer: Value) -> Result<T, Error> {
    from_redis_value(answer).map_err(|error| Error::Corrupt(format!("an answer of Redis: {error}")))
}

/// Bytes that are a record.
pub(super) fn record<T: Record>(bytes: &[u8], what: &str) -> Result<T, Error> {
    T::decode(bytes).map_err(|error| corrupt(what, &error))
}

/// The bytes of a record that is still as it was read, for a step that compares them: what says the same may lie there
/// in other bytes than ours, written by an earlier version.
pub(super) fn unchanged<T: Record + PartialEq>(
    kept: Option<Vec<u8>>,
    before: &T,
    what: &str,
) -> Result<Option<Vec<u8>>, Error> {
    let Some(kept) = kept else { return Ok(None) };
    Ok((record::<T>(&kept, what)? == *before).then_some(kept))
}

/// An answer that is a record, or nothing.
pub(super) fn maybe<T: Record>(answer: Value, what: &str) -> Result<Option<T>, Error> {
    value::<Option<Vec<u8>>>(answer)?.map(|bytes| record(&bytes, what)).transpose()
}

/// Something kept is not what it should be.
pub(super) fn corrupt(what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Corrupt(format!("{what}: {why}"))
}
