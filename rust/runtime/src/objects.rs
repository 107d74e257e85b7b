//! The node's table of published objects: their bytes, who reads them, whose memory they are in.

use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use eagleray_core::ids::{ObjectId, WorkerId};
use eagleray_store::{Block, Ledger, LedgerError, Location, Settled};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::program::Value;
use crate::segments::Segments;
use crate::shared::{Input, Shared};
use crate::unpinned::Unpinned;
use crate::wire::WireError;

/// The driver's number as an owner and as a reader of blocks. Worker `n` is `n + 1`.
pub(crate) const DRIVER: u32 = 0;

/// A worker's number as an owner and as a reader of blocks.
pub(crate) const fn holder_of(worker: WorkerId) -> u32 {
    worker.0 + 1
}

#[derive(Debug)]
struct Segment {
    fd: OwnedFd,
    size: u64,
    /// Workers that have mapped it.
    known_to: FxHashSet<WorkerId>,
}

/// A segment that a worker must map before it can read a block.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(crate) id: u64,
    pub(crate) size: u64,
    pub(crate) fd: OwnedFd,
}

/// Blocks to hand back, by their owner, and segments that are gone.
#[derive(Debug, Default)]
pub(crate) struct Recycled {
    pub(crate) blocks: Vec<Location>,
    pub(crate) segments: Vec<u64>,
}

impl Recycled {
    /// Takes in what the ledger says. Its errors mean that somebody counted wrong: the memory is lost until the
    /// session ends, nothing else.
    fn add(&mut self, settled: Result<Settled, LedgerError>) {
        match settled {
            Ok(settled) => {
                self.blocks.extend(settled.recycle);
                self.segments.extend(settled.unmap);
            }
            Err(error) => tracing::error!(%error, "ledger"),
        }
    }
}

/// A block that the driver reads. When its last reader is gone, the node hears of it.
struct Read {
    location: Location,
    reads: Arc<Reads>,
}

impl Drop for Read {
    fn drop(&mut self) {
        if self.reads.unpinned.add(self.location) {
            // When the session has ended, nobody needs to know.
            let _ = self.reads.wake.upgrade().map(|shared| shared.seat.send(Input::Unpinned, false));
        }
    }
}

/// What the driver has stopped reading, and who is to hear of it.
#[derive(Debug)]
struct Reads {
    unpinned: Unpinned,
    wake: Weak<Shared>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Objects {
    values: FxHashMap<ObjectId, Value>,
    segments: Segments,
    sources: FxHashMap<u64, Segment>,
    ledger: Ledger,
    reads: Arc<Reads>,
}

impl Objects {
    /// No objects. `wake` is told when the driver has stopped reading some.
    pub(crate) fn new(wake: Weak<Shared>) -> Self {
        Self {
            values: FxHashMap::default(),
            segments: Segments::default(),
            sources: FxHashMap::default(),
            ledger: Ledger::new(),
            reads: Arc::new(Reads { unpinned: Unpinned::new(), wake }),
        }
    }

    /// A process sent one of its segments.
    pub(crate) fn add_segment(&mut self, id: u64, size: u64, fd: OwnedFd) -> Result<(), WireError> {
        self.segments.open(id, size, &fd)?;
        self.ledger.segment_opened(id, size).map_err(|_| WireError::Inconsistent("segment"))?;
        self.sources.insert(id, Segment { fd, size, known_to: FxHashSet::default() });
        Ok(())
    }

    /// A process gave up one of its segments. Returns which workers shall forget it.
    pub(crate) fn remove_segment(&mut self, id: u64) -> Vec<WorkerId> {
        self.segments.close(id);
        // The ledger may have been the one that said so.
        let _ = self.ledger.segment_dropped(id);
        self.sources.remove(&id).map(|segment| segment.known_to.into_iter().collect()).unwrap_or_default()
    }

    /// The block at a location that a process named.
    pub(crate) fn block(&self, location: Location) -> Result<Block, WireError> {
        self.segments.block(location)
    }

    /// An object was published. If it was before, the new bytes are handed back at once, and this is false.
    ///
    /// An error means that its block is another object's, or lies over one; then nothing has changed.
    pub(crate) fn insert(
        &mut self,
        object: ObjectId,
        value: Value,
        recycled: &mut Recycled,
    ) -> Result<bool, LedgerError> {
        // A small value must not keep the whole buffer alive that it was read into.
        let value = match value {
            Value::Inline(bytes) => Value::Inline(Bytes::copy_from_slice(&bytes)),
            sealed @ Value::Sealed(_) => sealed,
        };
        if let Value::Sealed(block) = &value {
            self.ledger.sealed(block.location())?;
        }
        match self.values.entry(object) {
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(true)
            }
            Entry::Occupied(_) => {
                self.release(&value, recycled);
                Ok(false)
            }
        }
    }

    /// Whether an object is published.
    pub(crate) fn contains(&self, object: ObjectId) -> bool {
        self.values.contains_key(&object)
    }

    fn release(&mut self, value: &Value, recycled: &mut Recycled) {
        if let Value::Sealed(block) = value {
            recycled.add(self.ledger.release(block.location()));
        }
    }

    /// Nobody needs an object any more.
    pub(crate) fn remove(&mut self, object: ObjectId, recycled: &mut Recycled) {
        if let Some(value) = self.values.remove(&object) {
            self.release(&value, recycled);
        }
    }

    /// An object's value for the driver to read.
    pub(crate) fn for_driver(&mut self, object: ObjectId) -> Option<Value> {
        match self.values.get(&object)? {
            Value::Inline(bytes) => Some(Value::Inline(bytes.clone())),
            Value::Sealed(block) => {
                let location = block.location();
                self.ledger.pin(location, DRIVER).ok()?;
                let read = Read { location, reads: Arc::clone(&self.reads) };
                Some(Value::Sealed(block.clone().with_guard(Arc::new(read))))
            }
        }
    }

    /// An object's value for a worker to read, and the segment it must map first, if it has not.
    pub(crate) fn for_worker(&mut self, object: ObjectId, worker: WorkerId) -> Option<(Value, Option<Introduction>)> {
        let value = self.values.get(&object)?.clone();
        let Value::Sealed(block) = &value else { return Some((value, None)) };
        let location = block.location();
        let mut introduce = None;
        if location.owner() != holder_of(worker) {
            let segment = self.sources.get_mut(&location.segment)?;
            if !segment.known_to.contains(&worker) {
                let fd = segment.fd.try_clone().inspect_err(|error| tracing::error!(%error, "a segment")).ok()?;
                segment.known_to.insert(worker);
                introduce = Some(Introduction { id: location.segment, size: segment.size, fd });
            }
        }
        // Last: nothing may fail once it is pinned, or sent, once the worker counts as knowing.
        self.ledger.pin(location, holder_of(worker)).ok()?;
        Some((value, introduce))
    }

    /// A worker reads these blocks no more.
    pub(crate) fn unpin(&mut self, worker: WorkerId, locations: &[Location], recycled: &mut Recycled) {
        for &location in locations {
            recycled.add(self.ledger.unpin(location, holder_of(worker)));
        }
    }

    /// The driver's threads may have stopped reading blocks.
    pub(crate) fn collect_unpinned(&mut self, recycled: &mut Recycled) {
        let locations = self.reads.unpinned.take();
        for location in locations {
            recycled.add(self.ledger.unpin(location, DRIVER));
        }
    }

    /// A worker's process has ended: it reads nothing any more, and its own blocks need no recycling.
    pub(crate) fn worker_gone(&mut self, worker: WorkerId, recycled: &mut Recycled) {
        recycled.add(Ok(self.ledger.holder_gone(holder_of(worker))));
        recycled.add(Ok(self.ledger.owner_gone(holder_of(worker))));
        for segment in self.sources.values_mut() {
            segment.known_to.remove(&worker);
        }
    }

    /// How many objects are published.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes of blocks that are not handed back.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.ledger.bytes()
    }
}
