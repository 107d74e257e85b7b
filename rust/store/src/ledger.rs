//! What the coordinating process knows about all blocks: bookkeeping only, it touches no memory.

use std::collections::BTreeMap;

use crate::Location;
use crate::location::{HEADER, owner};

/// A message that contradicts what the [`Ledger`] knows. The ledger is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A segment was announced twice.
    #[error("segment {0:#x} is known already")]
    SegmentKnown(u64),
    /// The segment was never announced, or is gone.
    #[error("segment {0:#x} is not known")]
    UnknownSegment(u64),
    /// The owner dropped a segment that has blocks.
    #[error("segment {0:#x} has blocks")]
    SegmentInUse(u64),
    /// The owner of the segment is gone and cannot have sealed anything.
    #[error("the owner of segment {0:#x} is gone")]
    OwnerGone(u64),
    /// The block reaches out of its segment.
    #[error("{0:?} is not inside its segment")]
    OutOfSegment(Location),
    /// The block overlaps one that is sealed; sealed twice is that, too.
    #[error("{0:?} overlaps another block")]
    Overlap(Location),
    /// The block was never sealed, or is recycled.
    #[error("{0:?} is not known")]
    UnknownBlock(Location),
    /// The block was released and is only there for those who have it pinned already.
    #[error("{0:?} is released")]
    Released(Location),
    /// The holder has no pin on the block.
    #[error("{holder} has not pinned {location:?}")]
    NotPinned {
        /// The block.
        location: Location,
        /// Who gave a pin back.
        holder: u32,
    },
}

/// What follows from an operation of the [`Ledger`], in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Settled {
    /// Blocks that nobody reads any more: to be told to their owners, who free them. The ledger has forgotten them.
    pub recycle: Vec<Location>,
    /// Segments without blocks whose owner is gone: everybody can unmap them. The ledger has forgotten them.
    pub unmap: Vec<u64>,
}

/// All sealed blocks, who has pinned them, and what may be recycled.
///
/// A block is kept until it is [released](Self::release) (no one will ask for it again) and nobody has it pinned. Pins
/// are counted by holder, so that those of a process that died can be dropped ([`holder_gone`](Self::holder_gone)).
/// Owners and holders are numbers of the caller's choice; the two are not related here.
#[derive(Debug, Default)]
pub struct Ledger {
    segments: BTreeMap<u64, Segment>,
    /// By holder: the pins it has on each block (segment, offset). Never an empty table, never a zero.
    pins: BTreeMap<u32, BTreeMap<(u64, u64), u64>>,
    bytes: u64,
    blocks: usize,
}

#[derive(Debug)]
struct Segment {
    size: u64,
    /// The owner is gone: blocks are not recycled, and with the last one the segment goes.
    orphan: bool,
    /// By offset.
    blocks: BTreeMap<u64, Sealed>,
}

#[derive(Debug)]
struct Sealed {
    len: u64,
    generation: u64,
    /// By all holders together.
    pins: u64,
    released: bool,
}

impl Ledger {
    /// A ledger without segments.
    pub fn new() -> Self {
        Self::default()
    }

    /// An owner announced a segment of `size` bytes.
    pub fn segment_opened(&mut self, segment: u64, size: u64) -> Result<(), LedgerError> {
        if self.segments.contains_key(&segment) {
            return Err(LedgerError::SegmentKnown(segment));
        }
        self.segments.insert(segment, Segment { size, orphan: false, blocks: BTreeMap::new() });
        Ok(())
    }

    /// An owner closed a segment, all blocks of which it was told to recycle.
    pub fn segment_dropped(&mut self, segment: u64) -> Result<(), LedgerError> {
        let row = self.segments.get(&segment).ok_or(LedgerError::UnknownSegment(segment))?;
        if !row.blocks.is_empty() {
            return Err(LedgerError::SegmentInUse(segment));
        }
        self.segments.remove(&segment);
        Ok(())
    }

    /// The known segments of an owner, with their sizes in bytes.
    pub fn segments(&self, owner: u32) -> impl Iterator<Item = (u64, u64)> {
        self.range(owner).map(|(id, row)| (id, row.size))
    }

    /// An owner sealed a block.
    pub fn sealed(&mut self, location: Location) -> Result<(), LedgerError> {
        let Location { segment, offset, len, generation } = location;
        let row = self.segments.get_mut(&segment).ok_or(LedgerError::UnknownSegment(segment))?;
        if row.orphan {
            return Err(LedgerError::OwnerGone(segment));
        }
        let end = offset.checked_add(len).filter(|&end| end <= row.size && offset >= HEADER);
        let end = end.ok_or(LedgerError::OutOfSegment(location))?;
        // A block starts with its header, so two of them are never at the same offset, be they empty.
        let before = row.blocks.range(..=offset).next_back();
        let after = row.blocks.range(offset..).next();
        if before.is_some_and(|(&at, block)| at + block.len > offset - HEADER)
            || after.is_some_and(|(&at, _)| at - HEADER < end)
        {
            return Err(LedgerError::Overlap(location));
        }
        row.blocks.insert(offset, Sealed { len, generation, pins: 0, released: false });
        self.bytes += len;
        self.blocks += 1;
        Ok(())
    }

    /// `holder` is going to read the block. It may pin a block several times, and has to unpin it as often.
    pub fn pin(&mut self, location: Location, holder: u32) -> Result<(), LedgerError> {
        let block = self.block(location)?;
        if block.released {
            return Err(LedgerError::Released(location));
        }
        block.pins += 1;
        *self.pins.entry(holder).or_default().entry((location.segment, location.offset)).or_default() += 1;
        Ok(())
    }

    /// `holder` gives one pin back.
    pub fn unpin(&mut self, location: Location, holder: u32) -> Result<Settled, LedgerError> {
        self.block(location)?;
        let place = (location.segment, location.offset);
        let held = self.pins.get_mut(&holder).ok_or(LedgerError::NotPinned { location, holder })?;
        let count = held.get_mut(&place).ok_or(LedgerError::NotPinned { location, holder })?;
        *count -= 1;
        if *count == 0 {
            held.remove(&place);
            if held.is_empty() {
                self.pins.remove(&holder);
            }
        }
        let mut settled = Settled::default();
        self.drop_pins(place, 1, &mut settled);
        Ok(settled)
    }

    /// Nobody will ask for the block again; those who have it pinned may go on reading.
    pub fn release(&mut self, location: Location) -> Result<Settled, LedgerError> {
        let block = self.block(location)?;
        if block.released {
            return Err(LedgerError::Released(location));
        }
        block.released = true;
        let mut settled = Settled::default();
        self.settle((location.segment, location.offset), &mut settled);
        Ok(settled)
    }

    /// A process has exited: all its pins are given back.
    pub fn holder_gone(&mut self, holder: u32) -> Settled {
        let mut settled = Settled::default();
        for (place, count) in self.pins.remove(&holder).unwrap_or_default() {
            self.drop_pins(place, count, &mut settled);
        }
        settled
    }

    /// An owner has exited. Its blocks stay readable until they are released and unpinned, and are not recycled then.
    /// Its pins are another matter: [`holder_gone`](Self::holder_gone).
    pub fn owner_gone(&mut self, owner: u32) -> Settled {
        let segments: Vec<u64> = self.range(owner).map(|(id, _)| id).collect();
        let mut settled = Settled::default();
        for id in segments {
            if let Some(row) = self.segments.get_mut(&id) {
                row.orphan = true;
                if row.blocks.is_empty() {
                    self.segments.remove(&id);
                    settled.unmap.push(id);
                }
            }
        }
        settled
    }

    /// Bytes of payload of all blocks, without headers and padding.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of payload of an owner's blocks.
    pub fn bytes_of(&self, owner: u32) -> u64 {
        self.range(owner).flat_map(|(_, row)| row.blocks.values()).map(|block| block.len).sum()
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    fn range(&self, of: u32) -> impl Iterator<Item = (u64, &Segment)> {
        let segments = self.segments.range(u64::from(of) << 32..);
        segments.map(|(&id, row)| (id, row)).take_while(move |&(id, _)| owner(id) == of)
    }

    fn block(&mut self, location: Location) -> Result<&mut Sealed, LedgerError> {
        let row = self.segments.get_mut(&location.segment).ok_or(LedgerError::UnknownSegment(location.segment))?;
        let block = row.blocks.get_mut(&location.offset);
        let same = block.filter(|block| block.generation == location.generation && block.len == location.len);
        same.ok_or(LedgerError::UnknownBlock(location))
    }

    fn drop_pins(&mut self, place: (u64, u64), count: u64, settled: &mut Settled) {
        let row = self.segments.get_mut(&place.0);
        if let Some(block) = row.and_then(|row| row.blocks.get_mut(&place.1)) {
            block.pins -= count;
            self.settle(place, settled);
        }
    }

    /// Forgets the block if it is released and unpinned.
    fn settle(&mut self, (segment, offset): (u64, u64), settled: &mut Settled) {
        let Some(row) = self.segments.get_mut(&segment) else { return };
        let Some(block) = row.blocks.get(&offset).filter(|block| block.released && block.pins == 0) else { return };
        let &Sealed { len, generation, .. } = block;
        row.blocks.remove(&offset);
        self.bytes -= len;
        self.blocks -= 1;
        if !row.orphan {
            settled.recycle.push(Location { segment, offset, len, generation });
        } else if row.blocks.is_empty() {
            self.segments.remove(&segment);
            settled.unmap.push(segment);
        }
    }
}
