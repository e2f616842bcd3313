//! A flat table of records: each in a seat that stays its own until it is taken out. Seats lie in blocks that are never
//! moved, so a table of many records grows without copying them, and holds little more than they take.

/// Records in a block: enough to be walked in a row, few enough to be left half empty.
const BLOCK: usize = 64;

/// Where a record lies in its table. Of no use any more once it was taken out, though another may lie there then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    number: u32,
    /// How many records have been taken out of it before.
    before: u32,
}

impl Seat {
    /// Its number: seats are numbered from zero on.
    pub(super) fn number(self) -> usize {
        self.number as usize
    }
}

#[derive(Debug)]
struct Chair<T> {
    before: u32,
    record: Option<T>,
}

/// A flat table of records.
#[derive(Debug)]
pub(super) struct Table<T> {
    blocks: Vec<Vec<Chair<T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Table<T> {
    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// One past the last seat that was ever used.
    pub(super) fn end(&self) -> usize {
        self.len + self.free.len()
    }

    /// Puts a record, which may want to know its seat, into one that is free.
    pub(super) fn seat(&mut self, record: impl FnOnce(Seat) -> T) -> Seat {
        let number = self.free.pop().unwrap_or_else(|| self.add());
        let chair = &mut self.blocks[number as usize / BLOCK][number as usize % BLOCK];
        let seat = Seat { number, before: chair.before };
        chair.record = Some(record(seat));
        self.len += 1;
        seat
    }

    fn add(&mut self) -> u32 {
        let end = self.end();
        if end == self.blocks.len() * BLOCK {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        self.blocks[end / BLOCK].push(Chair { before: 0, record: None });
        u32::try_from(end).unwrap_or(u32::MAX)
    }

    /// The record in a seat.
    pub(super) fn get_mut(&mut self, seat: Seat) -> Option<&mut T> {
        self.chair(seat)?.record.as_mut()
    }

    /// The record in the seat with this number, and the seat.
    pub(super) fn at(&mut self, number: usize) -> Option<(Seat, &mut T)> {
        let chair = self.blocks.get_mut(number / BLOCK)?.get_mut(number % BLOCK)?;
        let seat = Seat { number: u32::try_from(number).ok()?, before: chair.before };
        chair.record.as_mut().map(|record| (seat, record))
    }

    /// Takes a record out; its seat may be another's next.
    pub(super) fn take(&mut self, seat: Seat) -> Option<T> {
        let chair = self.chair(seat)?;
        let record = chair.record.take()?;
        chair.before = chair.before.wrapping_add(1);
        self.free.push(seat.number);
        self.len -= 1;
        Some(record)
    }

    fn chair(&mut self, seat: Seat) -> Option<&mut Chair<T>> {
        let chair = self.blocks.get_mut(seat.number() / BLOCK)?.get_mut(seat.number() % BLOCK)?;
        (chair.before == seat.before).then_some(chair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_where_it_is_whoever_comes_and_goes() {
        let mut table = Table::default();
        let seats: Vec<Seat> = (0..200).map(|record| table.seat(|_| record)).collect();
        for seat in seats.iter().step_by(2) {
            table.take(*seat);
        }
        assert_eq!((table.len(), table.end()), (100, 200));
        let next = table.seat(|_| 1_000);
        let before = seats.iter().find(|seat| seat.number() == next.number()).copied().unwrap();
        assert_eq!(table.get_mut(before), None, "its seat is another's now");
        assert_eq!(table.take(before), None);
        assert_eq!(table.get_mut(next), Some(&mut 1_000));
        assert_eq!(table.get_mut(seats[77]), Some(&mut 77));
        assert_eq!((0..table.end()).filter(|number| table.at(*number).is_some()).count(), 101);
    }
}
