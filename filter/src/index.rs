//! Who satisfies an expression, answered from memory: the devices of one app as columns of bitmaps.
//!
//! Ordinals are cut into blocks of 65,536, as roaring bitmaps do, but the cut goes through the whole index: a block holds
//! all that is known about its devices, and an expression is answered for one block after the other. What it takes
//! in between is a few bitmaps of 8 KiB, which never leave the nearest cache; a change locks one block; and a block
//! where nobody can satisfy the expression is left after a look at its least clause.
//!
//! [`audience::holds`] says what the answer has to be. The index knows no store: whoever has one tells it of changes.

mod bits;
mod block;
mod column;
mod cut;
mod frame;
mod plan;
mod set;
mod slices;
mod terms;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use audience::Expr;
use model::{Device, Env, Ordinal, Ordinals, Run, Timestamp};
use parking_lot::RwLock;

use bits::Bits;
use block::Block;
use plan::{Moment, Plan};

/// The devices of one app.
#[derive(Default)]
pub struct Index {
    /// By the upper 16 bits of ordinals.
    blocks: RwLock<Vec<Arc<RwLock<Block>>>>,
    /// The runs of nodes whose sessions count.
    running: RwLock<Arc<[String]>>,
}

/// A part of an [`Index`]: devices whose ordinals have the same upper 16 bits.
pub struct Part {
    number: u16,
    block: Arc<RwLock<Block>>,
    running: Arc<[String]>,
}

impl Index {
    /// Says which runs of nodes count: whoever is connected to another one is not connected.
    pub fn set_running<'a>(&self, runs: impl IntoIterator<Item = &'a Run>) {
        *self.running.write() = runs.into_iter().map(Run::to_string).collect();
    }

    /// Notes what is known about a device now; what was known about this ordinal before is forgotten.
    pub fn put(&self, device: &Device) {
        let (number, low) = split(device.ordinal);
        self.block(number).write().put(low, device);
    }

    /// Forgets a device.
    pub fn remove(&self, ordinal: Ordinal) {
        let (number, low) = split(ordinal);
        let block = self.blocks.read().get(usize::from(number)).cloned();
        if let Some(block) = block {
            block.write().remove(low);
        }
    }

    /// The parts, in order of ordinals. Each answers by itself, so that whoever asks can rest in between.
    pub fn parts(&self) -> Vec<Part> {
        let (blocks, running) = (self.blocks.read(), self.running.read());
        let part = |(number, block): (u16, &Arc<RwLock<Block>>)| Part {
            number,
            block: block.clone(),
            running: running.clone(),
        };
        (0..).zip(blocks.iter()).map(part).collect()
    }

    /// The devices that satisfy the expression.
    pub fn select(&self, env: Env, expr: &Expr, now: Timestamp) -> Ordinals {
        let mut selected = Ordinals::new();
        self.parts().iter().for_each(|part| part.select(env, expr, now, &mut selected));
        selected
    }

    /// How many devices satisfy the expression.
    pub fn count(&self, env: Env, expr: &Expr, now: Timestamp) -> u64 {
        self.parts().iter().map(|part| part.count(env, expr, now)).sum()
    }

    /// How many devices are there.
    pub fn len(&self) -> u64 {
        self.parts().iter().map(|part| part.block.read().len()).sum()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes in memory, in bytes; about, as allocators round.
    pub fn bytes(&self) -> usize {
        self.parts().iter().map(Part::bytes).sum()
    }

    /// Adds the next part, as [`Part::to_bytes`] gave it; `None` when it is none.
    pub(crate) fn push(&self, bytes: &[u8]) -> Option<()> {
        let block = Block::from_bytes(bytes)?;
        self.blocks.write().push(Arc::new(RwLock::new(block)));
        Some(())
    }

    fn block(&self, number: u16) -> Arc<RwLock<Block>> {
        let at = usize::from(number);
        if let Some(block) = self.blocks.read().get(at) {
            return block.clone();
        }
        let mut blocks = self.blocks.write();
        if blocks.len() <= at {
            blocks.resize_with(at + 1, Arc::default);
        }
        blocks[at].clone()
    }
}

impl Part {
    /// Adds those of this part that satisfy the expression.
    pub fn select(&self, env: Env, expr: &Expr, now: Timestamp, selected: &mut Ordinals) {
        let found = self.answer(env, expr, now);
        if !found.is_empty() {
            selected.add_block(self.number, found.words());
        }
    }

    /// How many of this part satisfy the expression.
    pub fn count(&self, env: Env, expr: &Expr, now: Timestamp) -> u64 {
        self.answer(env, expr, now).len()
    }

    /// Adds how many of this part have each of the first tags after `after`: as many as `limit`, which are enough to know
    /// the first of all parts.
    pub(crate) fn tags(&self, env: Env, after: Option<&str>, limit: usize, counts: &mut BTreeMap<String, u64>) {
        let block = self.block.read();
        let registered = block.registered(env);
        let had = block.tags().after(after, block.postings()).filter_map(|(tag, set)| {
            let mut having = registered.clone();
            set.narrow(&mut having);
            (!having.is_empty()).then(|| (tag, having.len()))
        });
        for (tag, count) in had.take(limit) {
            *counts.entry(tag.to_owned()).or_default() += count;
        }
    }

    /// What it takes in memory, in bytes; about, as allocators round.
    pub fn bytes(&self) -> usize {
        self.block.read().bytes()
    }

    /// Everything that is known here, for [`Index::push`].
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.block.read().to_bytes()
    }

    fn answer(&self, env: Env, expr: &Expr, now: Timestamp) -> Bits {
        let block = self.block.read();
        let mut candidates = block.registered(env).clone();
        Plan::of(expr, &block, &Moment { env, now, running: &self.running }).narrow(&mut candidates);
        candidates
    }
}

/// The block of an ordinal, and its place there.
fn split(ordinal: Ordinal) -> (u16, u16) {
    ((ordinal.0 >> 16) as u16, ordinal.0 as u16)
}
