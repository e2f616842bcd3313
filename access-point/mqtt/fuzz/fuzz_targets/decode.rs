//! Looks for bytes that do harm to the decoder; what must hold is in `tests/fuzz/checks.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzz/checks.rs"]
#[expect(dead_code, reason = "the other target's checks")]
mod checks;

fuzz_target!(|bytes: &[u8]| checks::decode(bytes));
