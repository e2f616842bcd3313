//! How far each device has come.

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, cmd};
use model::{AppId, Cursor, Epoch, Ordinal, Progress, Seq};

use super::{
    Redis, key,
    link::Repeat,
    messages::number,
    script::{Call, Step},
    take,
};
use crate::{CursorWrite, Cursors, Error};

/// Cursors that one script writes before others get their turn.
const CURSORS_A_STEP: usize = 128;

#[async_trait]
impl Cursors for Redis {
    async fn cursor(&self, app: &AppId, device: Ordinal) -> Result<Cursor, Error> {
        let (of, mut beyond) = (self.of(app), cmd("GET"));
        beyond.arg(of.beyond(device));
        let answers = self.ask(vec![self.get_cursor(app, device), beyond]).await?;
        let [kept, beyond] = answers.try_into().map_err(|_| take::corrupt("a cursor", &"no answer"))?;
        let (kept, beyond): (Option<Vec<u8>>, Option<Vec<u8>>) = (take::value(kept)?, take::value(beyond)?);
        Ok(read(&kept.unwrap_or_default(), &beyond.unwrap_or_default()))
    }

    async fn save_cursors(&self, writes: Vec<CursorWrite>) -> Result<Vec<bool>, Error> {
        let mut steps = Vec::new();
        for of_app in writes.chunk_by(|a, b| a.app == b.app) {
            let of = self.of(&of_app[0].app);
            for page in of_app.chunks(CURSORS_A_STEP) {
                let mut step = Call::new(Step::SaveCursors);
                for CursorWrite { device, epoch, cursor, .. } in page {
                    step.key(of.places(*device)).key(of.beyond(*device)).key(of.inbox(*device));
                    step.arg(key::slot(*device)).arg(write(*epoch, cursor));
                    step.arg(seqs(&cursor.inbox.beyond)).arg(seqs(&cursor.timeline.beyond));
                }
                steps.push(step.cmd());
            }
        }
        let mut taken = Vec::with_capacity(writes.len());
        for answer in self.write(steps, Repeat::Once).await? {
            taken.extend(take::value::<Vec<bool>>(answer)?);
        }
        Ok(taken)
    }
}

impl Redis {
    fn get_cursor(&self, app: &AppId, device: Ordinal) -> Cmd {
        let mut get = cmd("HGET");
        get.arg(self.of(app).places(device)).arg(format!("c{}", key::slot(device)));
        get
    }

    /// The session that wrote a device's cursor last.
    pub(super) async fn cursor_epoch(&self, app: &AppId, device: Ordinal) -> Result<Epoch, Error> {
        let kept: Option<Vec<u8>> = take::value(self.ask_one(self.get_cursor(app, device)).await?)?;
        Ok(Epoch(number(&kept.unwrap_or_default(), 0)))
    }
}

fn write(epoch: Epoch, cursor: &Cursor) -> Vec<u8> {
    let Cursor { inbox, timeline } = cursor;
    seqs(&[Seq(epoch.0), inbox.prefix, inbox.sent, timeline.prefix, timeline.sent])
}

fn seqs(seqs: &[Seq]) -> Vec<u8> {
    seqs.iter().flat_map(|seq| seq.0.to_be_bytes()).collect()
}

fn read(kept: &[u8], beyond: &[u8]) -> Cursor {
    let seq = |at| Seq(number(kept, at));
    let (count, beyond) =
        beyond.split_first_chunk::<4>().map_or((0, beyond), |(n, rest)| (u32::from_be_bytes(*n), rest));
    let mut all: Vec<_> = beyond.chunks(8).map(|seq| Seq(number(seq, 0))).collect();
    let of_timeline = all.split_off(all.len().min(count as usize));
    Cursor {
        inbox: Progress { prefix: seq(8), beyond: all, sent: seq(16) },
        timeline: Progress { prefix: seq(24), beyond: of_timeline, sent: seq(32) },
    }
}
