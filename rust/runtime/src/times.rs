//! When tasks ran, in few bytes: a worker writes two numbers a task, and nobody reads them until somebody wants to know.

use bytes::Bytes;

/// Beginnings and durations of tasks that ran one after the other, each as two variable-length numbers: ns since the end of
/// the task before (the first since the clock's zero), and ns that it took.
#[derive(Debug, Default)]
pub struct Times {
    bytes: Vec<u8>,
    end: u64,
}

impl Times {
    /// So many bytes are the times of a task at most.
    pub const MOST_OF_A_TASK: usize = 20;

    /// The next task began then and took so long.
    #[inline]
    pub fn add(&mut self, begin_ns: u64, ns: u64) {
        let pause = begin_ns.saturating_sub(self.end);
        self.end = begin_ns.max(self.end) + ns;
        if (pause | ns) < 1 << 14 {
            // Of most tasks. Two bytes each, though one may do: it is for who reads to take the time, not for who runs.
            self.bytes.extend_from_slice(&[low(pause), (pause >> 7) as u8, low(ns), (ns >> 7) as u8]);
        } else {
            if self.bytes.is_empty() {
                // The first of a report, which has many mostly.
                self.bytes.reserve(ROOM);
            }
            put(&mut self.bytes, pause);
            put(&mut self.bytes, ns);
        }
    }

    /// What was added.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// Reads beginnings and ends. What is no number ends it.
    pub fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut end = 0u64;
        std::iter::from_fn(move || {
            let begin = end.saturating_add(take(&mut bytes)?);
            end = begin.saturating_add(take(&mut bytes)?);
            Some((begin, end))
        })
    }
}

/// Bytes that are made room for at once.
const ROOM: usize = 256;

const fn low(number: u64) -> u8 {
    number as u8 | 0x80
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(low(number));
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_are_read_as_they_were_written(steps in proptest::collection::vec((0u64..1 << 40, 0u64..1 << 40), 0..50)) {
            let (mut times, mut now, mut written) = (Times::default(), 0, Vec::new());
            for (pause, ns) in steps {
                times.add(now + pause, ns);
                written.push((now + pause, now + pause + ns));
                now += pause + ns;
            }
            prop_assert_eq!(Times::read(&times.into_bytes()).collect::<Vec<_>>(), written);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            prop_assert!(Times::read(&bytes).count() <= bytes.len());
        }
    }
}
