//! What is kept by name, in small records, and where it lies.

use crate::record::Record;

/// Records of one kind. The numbers are on disk: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Shelf {
    /// Saved audiences, by id.
    Audiences = 1,
    /// The devices of saved lists, by the audience's id.
    Members = 2,
    /// Who gets nothing any more, by name.
    Suppressions = 3,
    /// Who wants no messages of a type, by the type.
    OptOuts = 4,
    /// The attributes of an app, by name.
    Attributes = 5,
    /// Whom messages were meant for, by the message's id; notes.
    Aims = 6,
    /// Work that takes longer than a request should, by id; notes.
    Jobs = 7,
    /// How often devices get messages of a type, by the type.
    Caps = 8,
    /// Who got how many messages of a capped type, by the type.
    Counts = 9,
    /// When messages of a type, or of any, reach nobody, by the type.
    Quiet = 10,
    /// What came of commands, by the message's id; notes.
    Outcomes = 11,
}

/// A record that has a shelf of its kind.
pub trait Shelved: Record {
    /// Its shelf.
    const SHELF: Shelf;
}
