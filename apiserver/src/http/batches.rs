//! Frames of watch events that go out in one write, put together once for all who get them.
//!
//! What must not be here: when they go out (see [`super::pace`]), what they say.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

/// Events that are ready at the same time go out in one write, up to this many bytes.
const BATCH: usize = 64 * 1024;
/// How many batches are remembered: those of a burst, of the few resources and forms in which
/// many watch.
const KEPT: usize = 32;

/// The latest batches. Frames of one event are the same bytes in memory for everybody, so a
/// batch is known by where its frames are.
#[derive(Default)]
pub struct Batches(Mutex<VecDeque<Batch>>);

struct Batch {
    /// Keeps their memory from being used for others.
    frames: Vec<Bytes>,
    joined: Bytes,
}

impl Batches {
    /// Frames put together up to [`BATCH`]; one that stands alone is passed on as it is.
    pub fn joined(&self, frames: &[Bytes], shared: bool) -> VecDeque<Bytes> {
        let mut chunks = VecDeque::new();
        let mut rest = frames;
        while !rest.is_empty() {
            let mut size = 0;
            let fitting = rest.iter().take_while(|frame| {
                size += frame.len();
                size <= BATCH
            });
            let (group, others) = rest.split_at(fitting.count().max(1));
            chunks.push_back(match group {
                [only] => only.clone(),
                several if shared => self.shared(several),
                several => several.concat().into(),
            });
            rest = others;
        }
        chunks
    }

    fn shared(&self, frames: &[Bytes]) -> Bytes {
        let mut batches = self.0.lock();
        let found = batches.iter().find(|batch| is_same(&batch.frames, frames));
        if let Some(batch) = found {
            return batch.joined.clone();
        }
        // Under the lock: the next watcher wants the same.
        let joined = Bytes::from(frames.concat());
        if batches.len() == KEPT {
            batches.pop_back();
        }
        batches.push_front(Batch {
            frames: frames.to_vec(),
            joined: joined.clone(),
        });
        joined
    }
}

fn is_same(some: &[Bytes], others: &[Bytes]) -> bool {
    let place = |frame: &Bytes| (frame.as_ptr(), frame.len());
    some.iter().map(place).eq(others.iter().map(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: usize) -> Bytes {
        vec![b'x'; n].into()
    }

    #[test]
    fn frames_go_out_together_as_far_as_they_fit() {
        let sizes = |frames: &[usize]| -> Vec<usize> {
            let frames: Vec<_> = frames.iter().map(|n| frame(*n)).collect();
            let joined = Batches::default().joined(&frames, false);
            joined.iter().map(Bytes::len).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[1, 2, 3]), [6]);
        assert_eq!(sizes(&[1, BATCH, 2, BATCH - 2, 1]), [1, BATCH, BATCH, 1]);
        assert_eq!(sizes(&[BATCH + 1, 1]), [BATCH + 1, 1]);
        let alone = frame(9);
        let joined = Batches::default().joined(std::slice::from_ref(&alone), true);
        assert_eq!(joined[0].as_ptr(), alone.as_ptr());
    }

    #[test]
    fn a_batch_is_made_once() {
        let batches = Batches::default();
        let frames = [frame(5), frame(7), frame(9)];
        let joined = |frames: &[Bytes]| batches.joined(frames, true)[0].clone();
        let first = joined(&frames);
        assert_eq!(joined(&frames).as_ptr(), first.as_ptr());
        assert_eq!(joined(&frames[1..]).len(), 16);
        assert_eq!(joined(&frames).as_ptr(), first.as_ptr());
        for n in 1..=KEPT {
            joined(&[frame(n), frame(n)]);
        }
        assert_ne!(joined(&frames).as_ptr(), first.as_ptr());
    }
}
