//! The ledger against a simpler one, and every error it has.

use std::collections::BTreeMap;

use eagleray_store::{Ledger, LedgerError, Location, Settled};
use proptest::prelude::*;

const SIZE: u64 = 4096;

/// The block in slot `slot` of a segment.
fn at(owner: u32, number: u32, slot: u64, generation: u64) -> Location {
    let segment = u64::from(owner) << 32 | u64::from(number);
    Location { segment, offset: 64 + slot * 192, len: 100 + slot, generation }
}

fn recycle(locations: &[Location]) -> Settled {
    Settled { recycle: locations.to_vec(), unmap: Vec::new() }
}

fn unmap(segments: &[u64]) -> Settled {
    Settled { recycle: Vec::new(), unmap: segments.to_vec() }
}

#[test]
fn a_block_is_recycled_when_released_and_unpinned() {
    let mut ledger = Ledger::new();
    let block = at(1, 0, 0, 1);
    ledger.segment_opened(block.segment, SIZE).unwrap();
    ledger.sealed(block).unwrap();
    ledger.pin(block, 5).unwrap();
    ledger.pin(block, 5).unwrap();
    assert_eq!(ledger.unpin(block, 5), Ok(Settled::default()));
    assert_eq!(ledger.release(block), Ok(Settled::default()));
    assert_eq!((ledger.bytes(), ledger.blocks()), (100, 1));
    assert_eq!(ledger.unpin(block, 5), Ok(recycle(&[block])));
    assert_eq!((ledger.bytes(), ledger.blocks()), (0, 0));
    // Its place is free for another one.
    let next = at(1, 0, 0, 2);
    ledger.sealed(next).unwrap();
    assert_eq!(ledger.release(block), Err(LedgerError::UnknownBlock(block)));
    assert_eq!(ledger.release(next), Ok(recycle(&[next])));
    ledger.segment_dropped(block.segment).unwrap();
    assert_eq!(ledger.segments(1).count(), 0);
}

#[test]
fn blocks_outlive_their_owner() {
    let mut ledger = Ledger::new();
    let (pinned, kept, other) = (at(1, 0, 0, 1), at(1, 0, 1, 2), at(2, 0, 0, 1));
    for (number, size) in [(0, SIZE), (1, 2 * SIZE)] {
        ledger.segment_opened(1 << 32 | number, size).unwrap();
    }
    ledger.segment_opened(other.segment, SIZE).unwrap();
    for block in [pinned, kept, other] {
        ledger.sealed(block).unwrap();
    }
    ledger.pin(pinned, 9).unwrap();
    assert_eq!(ledger.release(pinned), Ok(Settled::default()));
    assert_eq!(ledger.segments(1).collect::<Vec<_>>(), [(1 << 32, SIZE), (1 << 32 | 1, 2 * SIZE)]);
    assert_eq!(ledger.owner_gone(1), unmap(&[1 << 32 | 1]));
    assert_eq!(ledger.owner_gone(1), Settled::default());
    assert_eq!(ledger.bytes_of(1), 201);
    assert_eq!(ledger.sealed(at(1, 0, 5, 3)), Err(LedgerError::OwnerGone(1 << 32)));
    ledger.pin(kept, 9).unwrap();
    assert_eq!(ledger.release(kept), Ok(Settled::default()));
    assert_eq!(ledger.holder_gone(9), unmap(&[1 << 32]));
    assert_eq!(ledger.holder_gone(9), Settled::default());
    assert_eq!((ledger.bytes_of(1), ledger.bytes(), ledger.blocks()), (0, 100, 1));
    assert_eq!(ledger.pin(kept, 9), Err(LedgerError::UnknownSegment(1 << 32)));
}

#[test]
fn contradictions_are_errors_and_change_nothing() {
    let mut ledger = Ledger::new();
    let block = at(1, 0, 1, 4);
    let segment = block.segment;
    assert_eq!(ledger.sealed(block), Err(LedgerError::UnknownSegment(segment)));
    assert_eq!(ledger.segment_dropped(segment), Err(LedgerError::UnknownSegment(segment)));
    ledger.segment_opened(segment, SIZE).unwrap();
    assert_eq!(ledger.segment_opened(segment, SIZE), Err(LedgerError::SegmentKnown(segment)));
    ledger.sealed(block).unwrap();
    assert_eq!(ledger.segment_dropped(segment), Err(LedgerError::SegmentInUse(segment)));
    let overlapping = [
        block,
        Location { generation: 5, ..block },
        Location { offset: block.offset - 64, len: 1, ..block },
        Location { offset: block.offset - 128, len: 65, ..block },
        Location { offset: block.offset + 64, ..block },
        Location { offset: block.offset + 128, ..block },
    ];
    for location in overlapping {
        assert_eq!(ledger.sealed(location), Err(LedgerError::Overlap(location)));
    }
    let outside = [
        Location { offset: 0, ..block },
        Location { offset: SIZE - 64, len: 65, ..block },
        Location { offset: 2048, len: u64::MAX, ..block },
    ];
    for location in outside {
        assert_eq!(ledger.sealed(location), Err(LedgerError::OutOfSegment(location)));
    }
    let unknown = [
        Location { generation: 5, ..block },
        Location { len: 1, ..block },
        Location { offset: block.offset + 64, ..block },
    ];
    for location in unknown {
        assert_eq!(ledger.pin(location, 1), Err(LedgerError::UnknownBlock(location)));
        assert_eq!(ledger.unpin(location, 1), Err(LedgerError::UnknownBlock(location)));
        assert_eq!(ledger.release(location), Err(LedgerError::UnknownBlock(location)));
    }
    assert_eq!(ledger.unpin(block, 1), Err(LedgerError::NotPinned { location: block, holder: 1 }));
    ledger.pin(block, 1).unwrap();
    assert_eq!(ledger.unpin(block, 2), Err(LedgerError::NotPinned { location: block, holder: 2 }));
    assert_eq!(ledger.release(block), Ok(Settled::default()));
    assert_eq!(ledger.release(block), Err(LedgerError::Released(block)));
    assert_eq!(ledger.pin(block, 2), Err(LedgerError::Released(block)));
    assert_eq!((ledger.bytes(), ledger.blocks()), (block.len, 1));
    assert_eq!(ledger.unpin(block, 1), Ok(recycle(&[block])));
    // Right behind a block is a place for the next.
    ledger.sealed(block).unwrap();
    ledger.sealed(Location { offset: block.offset + 192, ..block }).unwrap();
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Open(u32, u32),
    Seal(u32, u32, u64),
    Pin(u32, u32, u64, u32),
    Unpin(u32, u32, u64, u32),
    Release(u32, u32, u64),
    HolderGone(u32),
    OwnerGone(u32),
    Drop(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let segment = (0..3_u32, 0..2_u32);
    let block = (0..3_u32, 0..2_u32, 0..4_u64);
    prop_oneof![
        3 => segment.clone().prop_map(|(owner, number)| Step::Open(owner, number)),
        8 => block.clone().prop_map(|(owner, number, slot)| Step::Seal(owner, number, slot)),
        8 => (block.clone(), 0..3_u32).prop_map(|((owner, number, slot), holder)| Step::Pin(owner, number, slot, holder)),
        6 => (block.clone(), 0..3_u32).prop_map(|((owner, number, slot), holder)| Step::Unpin(owner, number, slot, holder)),
        6 => block.prop_map(|(owner, number, slot)| Step::Release(owner, number, slot)),
        1 => (0..3_u32).prop_map(Step::HolderGone),
        1 => (0..3_u32).prop_map(Step::OwnerGone),
        1 => segment.prop_map(|(owner, number)| Step::Drop(owner, number)),
    ]
}

/// The same rules without any tables: every question is answered by looking at everything.
#[derive(Default)]
struct Model {
    /// Known segments, and whether their owner is gone.
    segments: BTreeMap<u64, bool>,
    /// Known blocks: who pinned them (once for each pin), and whether they are released.
    blocks: BTreeMap<Location, (Vec<u32>, bool)>,
}

impl Model {
    fn settle(&mut self) -> Settled {
        let orphan = |segment| self.segments.get(&segment) == Some(&true);
        let over = self.blocks.iter().filter(|(_, (pins, released))| *released && pins.is_empty());
        let over: Vec<Location> = over.map(|(&location, _)| location).collect();
        let recycle = over.iter().copied().filter(|location| !orphan(location.segment)).collect();
        self.blocks.retain(|location, _| !over.contains(location));
        let empty = |&segment: &u64| self.blocks.keys().all(|location| location.segment != segment);
        let unmap: Vec<u64> =
            self.segments.iter().filter(|&(_, &gone)| gone).map(|(&id, _)| id).filter(empty).collect();
        self.segments.retain(|id, _| !unmap.contains(id));
        Settled { recycle, unmap }
    }

    /// The block in this place, whatever its generation.
    fn find(&self, wanted: Location) -> Option<Location> {
        let mut there = self.blocks.keys().filter(|at| (at.segment, at.offset) == (wanted.segment, wanted.offset));
        there.next().copied()
    }
}

proptest! {
    #[test]
    fn ledger_agrees_with_the_model(steps in prop::collection::vec(step(), 1..200)) {
        let mut ledger = Ledger::new();
        let mut model = Model::default();
        for (step, generation) in steps.into_iter().zip(1..) {
            match step {
                Step::Open(owner, number) => {
                    let segment = at(owner, number, 0, 0).segment;
                    let fresh = !model.segments.contains_key(&segment);
                    prop_assert_eq!(ledger.segment_opened(segment, SIZE).is_ok(), fresh);
                    model.segments.entry(segment).or_insert(false);
                }
                Step::Drop(owner, number) => {
                    let segment = at(owner, number, 0, 0).segment;
                    let idle = model.segments.contains_key(&segment)
                        && model.blocks.keys().all(|location| location.segment != segment);
                    prop_assert_eq!(ledger.segment_dropped(segment).is_ok(), idle);
                    if idle {
                        model.segments.remove(&segment);
                    }
                }
                Step::Seal(owner, number, slot) => {
                    let block = at(owner, number, slot, generation);
                    let possible = model.segments.get(&block.segment) == Some(&false) && model.find(block).is_none();
                    prop_assert_eq!(ledger.sealed(block).is_ok(), possible);
                    if possible {
                        model.blocks.insert(block, (Vec::new(), false));
                    }
                }
                Step::Pin(owner, number, slot, holder) => {
                    let wanted = at(owner, number, slot, generation);
                    let block = model.find(wanted).unwrap_or(wanted);
                    let entry = model.blocks.get_mut(&block).filter(|(_, released)| !released);
                    prop_assert_eq!(ledger.pin(block, holder).is_ok(), entry.is_some());
                    if let Some((pins, _)) = entry {
                        pins.push(holder);
                    }
                }
                Step::Unpin(owner, number, slot, holder) => {
                    let wanted = at(owner, number, slot, generation);
                    let block = model.find(wanted).unwrap_or(wanted);
                    let pins = model.blocks.get_mut(&block).map(|(pins, _)| pins);
                    let pin = pins.and_then(|pins| Some((pins.iter().position(|&by| by == holder)?, pins)));
                    let known = pin.map(|(index, pins)| pins.swap_remove(index)).is_some();
                    let settled = ledger.unpin(block, holder);
                    prop_assert_eq!(settled.ok(), known.then(|| model.settle()));
                }
                Step::Release(owner, number, slot) => {
                    let wanted = at(owner, number, slot, generation);
                    let block = model.find(wanted).unwrap_or(wanted);
                    let released = model.blocks.get_mut(&block).map(|(_, released)| released).filter(|released| !**released);
                    let known = released.map(|released| *released = true).is_some();
                    let settled = ledger.release(block);
                    prop_assert_eq!(settled.ok(), known.then(|| model.settle()));
                }
                Step::HolderGone(holder) => {
                    model.blocks.values_mut().for_each(|(pins, _)| pins.retain(|&by| by != holder));
                    prop_assert_eq!(ledger.holder_gone(holder), model.settle());
                }
                Step::OwnerGone(owner) => {
                    let theirs = model.segments.iter_mut().filter(|(id, _)| (*id >> 32) as u32 == owner);
                    theirs.for_each(|(_, gone)| *gone = true);
                    prop_assert_eq!(ledger.owner_gone(owner), model.settle());
                }
            }
            prop_assert_eq!(ledger.blocks(), model.blocks.len());
            prop_assert_eq!(ledger.bytes(), model.blocks.keys().map(|location| location.len).sum::<u64>());
            prop_assert_eq!(ledger.bytes(), (0..3).map(|owner| ledger.bytes_of(owner)).sum::<u64>());
            let known = (0..3).flat_map(|owner| ledger.segments(owner).collect::<Vec<_>>());
            prop_assert_eq!(known.collect::<Vec<_>>(), model.segments.keys().map(|&id| (id, SIZE)).collect::<Vec<_>>());
        }
    }
}
