//! The promises of every store, kept by the embedded one.

use crate::place::Directory;

store::contract_suite!(Directory::new());
