//! A process's own segments: writing blocks and recycling them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::location::{Backing, HEADER, block_size, clear_header, header_matches, seal_header};
use crate::map::{ReadWrite, Span};
use crate::space::{GRANULE, Space};
use crate::{Block, Location, ReadMap, StoreError, file};

/// Words of the header that are written and compared.
const HEADER_WORDS: usize = 3;

/// How an [`Arena`] is set up.
#[derive(Debug, Clone)]
pub struct ArenaConfig {
    /// Id of the process, unique in its session.
    pub owner: u32,
    /// Bytes of memory that may be reserved, in use or free. What exceeds it goes to files.
    pub budget: u64,
    /// Bytes of a segment; [`ArenaConfig::SEGMENT_SIZE`] is meant for all but tests. A larger block gets a segment of
    /// its own. Rounded up to 64 KiB.
    pub segment_size: u64,
    /// Where those files are made. They have no name for longer than it takes to remove it.
    pub escape_dir: PathBuf,
}

impl ArenaConfig {
    /// The usual size of a segment. Sparse: it costs address space, and memory only as far as it was used.
    pub const SEGMENT_SIZE: u64 = 256 << 20;
}

/// A segment that other processes have to open before they can read its blocks.
#[derive(Debug)]
pub struct NewSegment {
    /// Its id.
    pub segment: u64,
    /// Open for reading only.
    pub fd: OwnedFd,
    /// Its size in bytes.
    pub size: u64,
}

/// What an arena takes up, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Blocks that are being written or sealed, with their headers and padding.
    pub blocks: u64,
    /// Memory reserved, in use or warm for the next block. Never more than the budget.
    pub memory: u64,
    /// Disk space reserved.
    pub disk: u64,
}

/// The segments a process owns. Clones are handles to the same; any thread may use them.
///
/// Memory that was used stays reserved, warm for the next block, until the budget needs it elsewhere. When the last
/// handle and the last [`Writer`] are gone the segments are closed; blocks opened from them stay readable.
///
/// One lock guards the bookkeeping. It is held while fresh memory is reserved, not while it is zeroed or written.
#[derive(Debug, Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ArenaConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By id; those in memory come before those in files.
    segments: BTreeMap<u64, Segment>,
    /// Segments made so far, of memory and of files: a number is not used twice.
    made: [u32; 2],
    /// Generation of the last block.
    generation: u64,
    /// Bytes of memory reserved in all segments.
    memory: u64,
    /// Segments that were announced and are closed now, as long as nobody has asked.
    dropped: Vec<u64>,
}

/// A segment and the offset of a block's header in it.
type Place = (u64, u64);

#[derive(Debug)]
struct Segment {
    space: Space,
    /// Made for one block that is larger than the usual segment, and closed with it.
    single: bool,
    fd: OwnedFd,
    write: Arc<ReadWrite>,
    read: Arc<ReadMap>,
    /// The descriptor for others, until it is taken.
    unannounced: Option<OwnedFd>,
}

impl Arena {
    /// An arena without segments; they are made when they are needed.
    pub fn new(config: ArenaConfig) -> Self {
        let segment_size = config.segment_size.clamp(GRANULE, 1 << 46).next_multiple_of(GRANULE);
        let config = ArenaConfig { segment_size, ..config };
        Self { shared: Arc::new(Shared { config, state: Mutex::default() }) }
    }

    /// Room for a value of `len` bytes. What the room holds at first is not specified.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] if neither the budget nor the disk has room, [`StoreError::Full`] if no process could
    /// map that much, [`StoreError::Os`] if the system refuses for another reason (descriptors, a missing directory).
    pub fn alloc(&self, len: u64) -> Result<Writer, StoreError> {
        let need = block_size(len).ok_or(StoreError::Full { wanted: len })?;
        let mut state = self.shared.state.lock();
        let (segment, offset) = state.place(&self.shared.config, need)?;
        let generation = state.generation;
        let write = Arc::clone(&state.segments[&segment].write);
        drop(state);
        clear_header(write.words(offset, HEADER_WORDS));
        let location = Location { segment, offset: offset + HEADER, len, generation };
        let span = Span::new(write, location.offset, len);
        Ok(Writer { shared: Arc::clone(&self.shared), span, location, sealed: false })
    }

    /// Takes a sealed block back, to be used for another value. Nobody may have it pinned (the ledger knows).
    ///
    /// # Errors
    /// [`StoreError::NotHere`] if it is not a block of this arena, or was freed before.
    pub fn free(&self, location: Location) -> Result<(), StoreError> {
        self.shared.free(&location, true)
    }

    /// The sealed block at `location`, if it is one of this arena: through a read-only mapping, as others see it.
    pub fn local(&self, location: &Location) -> Option<Block> {
        let read = Arc::clone(&self.shared.state.lock().segments.get(&location.segment)?.read);
        read.block(*location).ok()
    }

    /// Segments made since this was last asked, for the caller to announce to others. To be asked after a block is
    /// sealed and before its location is told. Threads that share an arena have to ask and announce under one lock:
    /// else one tells a location in a segment that another has taken from here and not announced yet.
    pub fn take_new_segments(&self) -> Vec<NewSegment> {
        let mut state = self.shared.state.lock();
        let announce = |(&segment, row): (&u64, &mut Segment)| {
            row.unannounced.take().map(|fd| NewSegment { segment, fd, size: row.space.size() })
        };
        state.segments.iter_mut().filter_map(announce).collect()
    }

    /// Segments closed since this was last asked, of those that were announced: others can unmap them.
    pub fn take_dropped_segments(&self) -> Vec<u64> {
        std::mem::take(&mut self.shared.state.lock().dropped)
    }

    /// What the arena takes up now.
    pub fn usage(&self) -> Usage {
        let state = self.shared.state.lock();
        let files = state.segments.iter().filter(|&(&id, _)| Backing::of(id) == Backing::File);
        Usage {
            blocks: state.segments.values().map(|segment| segment.space.used()).sum(),
            memory: state.memory,
            disk: files.map(|(_, segment)| segment.space.warm()).sum(),
        }
    }
}

impl Shared {
    /// Frees a block if it is there, and sealed or not as said.
    fn free(&self, location: &Location, sealed: bool) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let Segment { space, write, single, .. } =
            state.segments.get_mut(&location.segment).ok_or(StoreError::NotHere)?;
        let offset = location.offset.checked_sub(HEADER).ok_or(StoreError::NotHere)?;
        // Only what is taken has a header that can be trusted: elsewhere are bytes of some value.
        if !space.is_taken(offset, location.generation) {
            return Err(StoreError::NotHere);
        }
        let header = write.words(offset, HEADER_WORDS);
        if header_matches(header, location) != sealed {
            return Err(StoreError::NotHere);
        }
        // Before the place can be given out again: who comes too late with this location must not find it.
        clear_header(header);
        space.give(offset);
        if space.is_empty() && (*single || Backing::of(location.segment) == Backing::File) {
            state.close(location.segment);
        }
        Ok(())
    }
}

impl State {
    /// Finds room for a block of `need` bytes with its header: warm memory, then fresh memory within the budget, then
    /// memory that other segments can spare, then a file. Counts the generation up.
    fn place(&mut self, config: &ArenaConfig, need: u64) -> Result<Place, StoreError> {
        self.generation += 1;
        if let Some(place) = self.reuse(Backing::Memory, need) {
            return Ok(place);
        }
        // With enough of the slack given back, a segment made for this block alone would fit.
        let cost = need.next_multiple_of(GRANULE);
        let slack: Vec<_> = self.shared(Backing::Memory).map(|(id, segment)| (id, segment.space.slack())).collect();
        let affordable = self.memory - slack.iter().map(|&(_, slack)| slack).sum::<u64>() + cost <= config.budget;
        let mut donors = slack.into_iter().rev().filter(|&(_, slack)| affordable && slack > 0);
        loop {
            let limit = config.budget.saturating_sub(self.memory);
            match self.extend(config, Backing::Memory, need, limit) {
                Ok(Some(place)) => return Ok(place),
                Ok(None) => {}
                // The machine has less than the budget allows.
                Err(StoreError::Full { .. }) => break,
                Err(error) => return Err(error),
            }
            let Some((donor, slack)) = donors.next() else { break };
            let missing = (self.memory + cost - config.budget).next_multiple_of(GRANULE);
            self.trim(donor, slack.min(missing))?;
        }
        if let Some(place) = self.reuse(Backing::File, need) {
            return Ok(place);
        }
        self.extend(config, Backing::File, need, u64::MAX)?.ok_or(StoreError::Full { wanted: need })
    }

    /// The segments that take more than one block.
    fn shared(&self, backing: Backing) -> impl Iterator<Item = (u64, &Segment)> {
        let of_backing = move |&(id, segment): &(u64, &Segment)| Backing::of(id) == backing && !segment.single;
        self.segments.iter().map(|(&id, segment)| (id, segment)).filter(of_backing)
    }

    /// Puts the block where it wastes least of what is reserved already.
    fn reuse(&mut self, backing: Backing, need: u64) -> Option<Place> {
        let gaps = self.shared(backing).filter_map(|(id, segment)| segment.space.tightest(need).map(|gap| (gap, id)));
        let (_, id) = gaps.min()?;
        self.take(id, need)
    }

    /// Reserves at most `limit` bytes more, in a segment that has room or in another one, and puts the block there.
    /// `None` if that is not enough.
    fn extend(
        &mut self,
        config: &ArenaConfig,
        backing: Backing,
        need: u64,
        limit: u64,
    ) -> Result<Option<Place>, StoreError> {
        let mut growths =
            self.shared(backing).filter_map(|(id, segment)| segment.space.growth(need).map(|by| (id, by)));
        let existing = growths.find(|&(_, by)| by <= limit);
        drop(growths);
        let cost = need.next_multiple_of(GRANULE);
        let (id, by) = match existing {
            Some(found) => found,
            None if cost > limit => return Ok(None),
            None => (self.create(config, backing, need)?, cost),
        };
        if let Err(error) = self.grow(id, by) {
            // Made for nothing.
            if existing.is_none() {
                self.close(id);
            }
            return Err(error);
        }
        Ok(self.take(id, need))
    }

    fn take(&mut self, id: u64, need: u64) -> Option<Place> {
        let offset = self.segments.get_mut(&id)?.space.take(need, self.generation)?;
        Some((id, offset))
    }

    /// Makes a segment that has room for `need` bytes.
    fn create(&mut self, config: &ArenaConfig, backing: Backing, need: u64) -> Result<u64, StoreError> {
        let size = config.segment_size.max(need.next_multiple_of(GRANULE));
        let (id, fd) = loop {
            let made = &mut self.made[backing as usize];
            let id = backing.segment(config.owner, *made).ok_or(StoreError::Full { wanted: need })?;
            *made += 1;
            let fd = match backing {
                Backing::Memory => Some(file::memory("eagleray-segment", size)?),
                // A file of that name is what a process with our id left that died before it could unlink it.
                Backing::File => file::unlinked(&config.escape_dir, &format!("segment-{id:016x}"), size)?,
            };
            if let Some(fd) = fd {
                break (id, fd);
            }
        };
        let for_others = file::read_only(fd.as_fd())?;
        let segment = Segment {
            space: Space::new(size),
            single: size > config.segment_size,
            write: Arc::new(ReadWrite::new(fd.as_fd(), size)?),
            read: ReadMap::open(&for_others, id, size)?,
            fd,
            unannounced: Some(for_others),
        };
        self.segments.insert(id, segment);
        Ok(id)
    }

    /// Reserves `by` bytes more of a segment.
    fn grow(&mut self, id: u64, by: u64) -> Result<(), StoreError> {
        let Some(Segment { space, fd, .. }) = self.segments.get_mut(&id) else { return Ok(()) };
        if let Err(error) = file::reserve(fd, Backing::of(id), space.warm(), by) {
            // Part of it may be reserved. Should giving that back fail as well, the first error still says more.
            let _ = file::punch(fd, space.warm(), by);
            return Err(error);
        }
        space.grow(by);
        if Backing::of(id) == Backing::Memory {
            self.memory += by;
        }
        Ok(())
    }

    /// Gives `by` bytes of a memory segment's slack back to the system.
    fn trim(&mut self, id: u64, by: u64) -> Result<(), StoreError> {
        let Some(Segment { space, fd, .. }) = self.segments.get_mut(&id) else { return Ok(()) };
        file::punch(fd, space.warm() - by, by)?;
        space.trim(by);
        self.memory -= by;
        Ok(())
    }

    /// Closes a segment without blocks. Its bytes go when the last process has unmapped it.
    fn close(&mut self, id: u64) {
        let Some(segment) = self.segments.remove(&id) else { return };
        if Backing::of(id) == Backing::Memory {
            self.memory -= segment.space.warm();
        }
        if segment.unannounced.is_none() {
            self.dropped.push(id);
        }
    }
}

/// A block that is being written. Dropped without [`seal`](Self::seal), its place is free again.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    span: Span,
    location: Location,
    sealed: bool,
}

impl Writer {
    /// The room for the payload; starts at a multiple of 64 bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.span.bytes()
    }

    /// Whether the block is in a file because the budget is used up: slow, and worth a warning.
    pub fn escaped(&self) -> bool {
        Backing::of(self.location.segment) == Backing::File
    }

    /// Ends writing. From here on the block can be read, by whoever has its segment, until it is freed.
    pub fn seal(mut self) -> Location {
        seal_header(self.span.map().words(self.location.offset - HEADER, HEADER_WORDS), &self.location);
        self.sealed = true;
        self.location
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.sealed {
            let freed = self.shared.free(&self.location, false);
            debug_assert_eq!(freed, Ok(()), "an unsealed block belongs to its writer alone");
        }
    }
}
