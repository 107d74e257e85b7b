//! A worker's side of its socket, its page and its own segments.
//!
//! The worker's main thread reads; any thread may queue frames (a ref can die anywhere).

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eagleray_core::ids::WorkerId;
use eagleray_core::page::Page;
use eagleray_store::{Arena, ArenaConfig, Block, Location, StoreError, Words};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::program::Value;
use crate::segments::Segments;
use crate::socket::{Reader, SocketError, Writer};
use crate::spin::Spin;
use crate::unpinned::Unpinned;
use crate::wire::{self, FromWorker, ToWorker, WireError};

/// Results up to this size, in bytes, travel in messages.
pub const MOST_INLINE: usize = 64 << 10;

/// What a worker is given when it begins.
#[derive(Debug)]
pub struct LinkConfig {
    /// Its number.
    pub worker: WorkerId,
    /// Its socket to the node.
    pub socket: OwnedFd,
    /// Its control page.
    pub page: OwnedFd,
    /// How many bytes of segments it may own.
    pub store_bytes: u64,
    /// Where files go when that is not enough.
    pub escape_dir: PathBuf,
}

/// Tells the node that a block is read no more, once its last reader here is gone.
struct Unpin {
    location: Location,
    unpinned: Arc<Unpinned>,
}

impl Drop for Unpin {
    fn drop(&mut self) {
        self.unpinned.add(self.location);
    }
}

#[derive(Debug)]
struct Incoming {
    reader: Reader,
    spin: Spin,
    segments: Segments,
}

/// See the module.
pub struct Link {
    worker: WorkerId,
    words: Words,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Writer>,
    arena: Arena,
    unpinned: Arc<Unpinned>,
    seen_requests: Mutex<u64>,
    wakeups: AtomicU32,
    /// Held from sealing to announcing: no location may be told before its segment.
    announcing: Mutex<()>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Its socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The shared memory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused something that it always grants.
    #[error("system: {0}")]
    Os(#[from] rustix::io::Errno),
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self::Socket(SocketError::Wire(error))
    }
}

impl Link {
    /// Opens the page and the socket. Nothing is sent yet.
    ///
    /// From now on this process ends when the one that forked it does: nobody else would reap it.
    pub fn open(config: LinkConfig) -> Result<Self, LinkError> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let words = Words::open(&config.page)?;
        let socket = Arc::new(config.socket);
        let arena = Arena::new(ArenaConfig {
            owner: config.worker.0 + 1,
            budget: config.store_bytes,
            escape_dir: config.escape_dir,
            segment_size: ArenaConfig::SEGMENT_SIZE,
        });
        Ok(Self {
            worker: config.worker,
            words,
            incoming: Mutex::new(Incoming {
                reader: Reader::new(Arc::clone(&socket)),
                spin: Spin::default(),
                segments: Segments::default(),
            }),
            outgoing: Mutex::new(Writer::new(socket)),
            arena,
            unpinned: Arc::new(Unpinned::new()),
            seen_requests: Mutex::new(0),
            wakeups: AtomicU32::new(0),
            announcing: Mutex::default(),
        })
    }

    /// Which worker this is.
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The control page.
    pub fn page(&self) -> Page<'_> {
        Page::new(self.words.words()).expect("a page of words is long enough")
    }

    /// Queues a frame. It goes with the next [`Link::flush`].
    pub fn send(&self, message: &FromWorker) {
        self.outgoing.lock().queue(|out| wire::put_from_worker(out, message));
    }

    /// Writes what is queued, waiting while the socket is full.
    pub fn flush(&self) -> Result<(), LinkError> {
        let unpins = self.unpinned.take();
        let mut outgoing = self.outgoing.lock();
        if !unpins.is_empty() {
            outgoing.queue(|out| wire::put_from_worker(out, &FromWorker::Unpin(unpins)));
        }
        outgoing.flush(true)?;
        Ok(())
    }

    /// How often this worker slept in `read` since this was last asked.
    pub fn take_wakeups(&self) -> u32 {
        self.wakeups.swap(0, Ordering::Relaxed)
    }

    /// Whether the node wants its frames read before the next task. Says so once per request.
    pub fn requested(&self) -> bool {
        let now = self.page().requests();
        let mut seen = self.seen_requests.lock();
        std::mem::replace(&mut *seen, now) != now
    }

    /// The next message that has arrived already. `None` also while another thread reads: it will take the message.
    pub fn try_next(&self) -> Result<Option<ToWorker>, LinkError> {
        let Some(mut incoming) = self.incoming.try_lock() else { return Ok(None) };
        self.take(&mut incoming).inspect_err(|_| incoming.reader.close())
    }

    /// The next message that has arrived. After an error the connection is to be closed: whichever thread reads next must
    /// not go on behind what could not be understood.
    fn take(&self, incoming: &mut Incoming) -> Result<Option<ToWorker>, LinkError> {
        loop {
            if let Some(message) = self.decode(incoming)? {
                return Ok(Some(message));
            }
            if !incoming.reader.fill(false)? {
                return Ok(None);
            }
        }
    }

    /// The next message; waits for it. `None` when `timeout` has passed. To be called by one thread at a time, which must
    /// not hold the GIL.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<ToWorker>, LinkError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut incoming = self.incoming.lock();
        loop {
            if let Some(message) = self.take(&mut incoming).inspect_err(|_| incoming.reader.close())? {
                return Ok(Some(message));
            }
            let Incoming { reader, spin, .. } = &mut *incoming;
            // One that is in use is where the next frame comes from.
            if spin.until(1, || reader.fill(false))? {
                continue;
            }
            self.wakeups.fetch_add(1, Ordering::Relaxed);
            let Some(deadline) = deadline else {
                incoming.reader.fill(true)?;
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::from_borrowed_fd(incoming.reader.socket(), PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The next frame that is for somebody else than the link itself.
    fn decode(&self, incoming: &mut Incoming) -> Result<Option<ToWorker>, LinkError> {
        while let Some(frame) = incoming.reader.frame()? {
            let Incoming { reader, segments, .. } = incoming;
            let mut resolve = |location: Location| self.read_block(segments, location);
            match wire::read_to_worker(self.worker, frame, &mut resolve)? {
                ToWorker::Segment { id, size } => segments.open(id, size, &reader.take_fd()?)?,
                ToWorker::SegmentGone(id) => segments.close(id),
                ToWorker::Recycle(locations) => {
                    for location in locations {
                        self.arena.free(location)?;
                    }
                    for id in self.arena.take_dropped_segments() {
                        self.send(&FromWorker::SegmentGone(id));
                    }
                }
                message => return Ok(Some(message)),
            }
        }
        Ok(None)
    }

    fn read_block(&self, segments: &Segments, location: Location) -> Result<Block, WireError> {
        let block = if location.owner() == self.worker.0 + 1 {
            let block = self.arena.local(&location);
            block.ok_or_else(|| WireError::Block("a block of this worker is gone".into()))?
        } else {
            segments.block(location)?
        };
        let unpin = Unpin { location, unpinned: Arc::clone(&self.unpinned) };
        Ok(block.with_guard(Arc::new(unpin)))
    }

    /// Stores `len` bytes, which `write` fills in: inline if they are few and not `seal`, else in an own segment.
    pub fn store(&self, len: usize, seal: bool, write: impl FnOnce(&mut [u8])) -> Result<Value, LinkError> {
        if len <= MOST_INLINE && !seal {
            let mut bytes = vec![0; len];
            write(&mut bytes);
            return Ok(Value::Inline(Bytes::from(bytes)));
        }
        let mut writer = self.arena.alloc(len as u64)?;
        write(writer.bytes());
        let location = writer.seal();
        let _announcing = self.announcing.lock();
        for segment in self.arena.take_new_segments() {
            let message = FromWorker::Segment { id: segment.segment, size: segment.size };
            self.outgoing.lock().queue_with_fd(segment.fd, |out| wire::put_from_worker(out, &message));
        }
        Ok(Value::Sealed(self.arena.local(&location).ok_or(StoreError::NotHere)?))
    }
}
