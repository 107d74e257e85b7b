//! The arena against a model, and its ways out when there is no room.

mod support;

use std::collections::BTreeMap;

use eagleray_store::{Location, ReadMap, StoreError, Usage, Writer};
use proptest::prelude::*;
use proptest::sample::Index;
use support::{Directory, pattern, seal};

const KIB: u64 = 1 << 10;
const GRANULE: u64 = 64 * KIB;
const BUDGET: u64 = 8 * GRANULE;
const SEGMENT: u64 = 2 * GRANULE;

#[derive(Debug, Clone)]
enum Step {
    Alloc(u64),
    Seal(Index),
    Drop(Index),
    Free(Index),
    FreeTwice(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![4 => 0..200_u64, 4 => 0..GRANULE, 1 => 0..4 * GRANULE];
    let step = prop_oneof![
        5 => len.prop_map(Step::Alloc),
        4 => any::<Index>().prop_map(Step::Seal),
        1 => any::<Index>().prop_map(Step::Drop),
        3 => any::<Index>().prop_map(Step::Free),
        1 => any::<Index>().prop_map(Step::FreeTwice),
    ];
    prop::collection::vec(step, 1..150)
}

fn pick<T>(live: &mut Vec<T>, index: Index) -> Option<T> {
    if live.is_empty() { None } else { Some(live.swap_remove(index.index(live.len()))) }
}

/// Bytes a block takes with header and padding.
fn size(len: u64) -> u64 {
    64 + len.next_multiple_of(64)
}

fn disjoint(blocks: &[Location]) {
    let mut places: Vec<_> = blocks.iter().map(|at| (at.segment, at.offset - 64, at.offset + at.len)).collect();
    places.sort_unstable();
    for pair in places.windows(2) {
        assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "{pair:?} overlap");
    }
}

/// Runs the steps as owner and as reader; returns every location there was.
fn run(steps: &[Step]) -> Vec<Location> {
    let directory = Directory::new();
    let arena = directory.arena(BUDGET, SEGMENT);
    let mut maps = BTreeMap::new();
    let mut writers: Vec<Writer> = Vec::new();
    let mut sealed: Vec<(Location, u64)> = Vec::new();
    let mut all: Vec<Location> = Vec::new();
    let mut seed = 0;
    let mut blocks = 0;
    for step in steps {
        match *step {
            Step::Alloc(len) => {
                let mut writer = arena.alloc(len).unwrap();
                assert_eq!(writer.bytes().len() as u64, len);
                assert!(writer.bytes().as_ptr().addr().is_multiple_of(64));
                writer.bytes().fill(0xee);
                blocks += size(len);
                writers.push(writer);
            }
            Step::Seal(index) => {
                if let Some(writer) = pick(&mut writers, index) {
                    seed += 1;
                    let location = seal(writer, seed);
                    assert_eq!(location.owner(), 7);
                    sealed.push((location, seed));
                    all.push(location);
                }
            }
            Step::Drop(index) => {
                if let Some(mut writer) = pick(&mut writers, index) {
                    blocks -= size(writer.bytes().len() as u64);
                }
            }
            Step::Free(index) | Step::FreeTwice(index) => {
                if let Some((location, _)) = pick(&mut sealed, index) {
                    arena.free(location).unwrap();
                    blocks -= size(location.len);
                    assert!(arena.local(&location).is_none());
                    if matches!(step, Step::FreeTwice(_)) {
                        assert_eq!(arena.free(location), Err(StoreError::NotHere));
                    }
                }
            }
        }
        for new in arena.take_new_segments() {
            assert!(maps.insert(new.segment, ReadMap::open(new.fd, new.segment, new.size).unwrap()).is_none());
        }
        for dropped in arena.take_dropped_segments() {
            assert!(maps.remove(&dropped).is_some());
        }
        let usage = arena.usage();
        assert_eq!(usage.blocks, blocks);
        assert!(usage.memory <= BUDGET);
        assert!(usage.memory + usage.disk >= blocks);
        disjoint(&sealed.iter().map(|&(location, _)| location).collect::<Vec<_>>());
    }
    for &(location, seed) in &sealed {
        let expected = pattern(seed, location.len as usize);
        assert_eq!(maps[&location.segment].block(location).unwrap().as_ref(), expected);
        assert_eq!(arena.local(&location).unwrap().as_ref(), expected);
    }
    for location in all.iter().filter(|location| !sealed.iter().any(|(live, _)| live == *location)) {
        let gone = maps.get(&location.segment).map(|map| map.block(*location).map(|block| block.location()));
        assert!(matches!(gone, None | Some(Err(StoreError::NotHere))));
    }
    drop(writers);
    for (location, _) in sealed {
        arena.free(location).unwrap();
    }
    let usage = arena.usage();
    assert_eq!((usage.blocks, usage.disk), (0, 0));
    // Whole again: as many blocks fit as if nothing had been there.
    let again: Vec<_> = (0..BUDGET / SEGMENT).map(|_| arena.alloc(SEGMENT - 64).unwrap()).collect();
    assert!(again.iter().all(|writer| !writer.escaped()));
    assert_eq!(arena.usage(), Usage { blocks: BUDGET, memory: BUDGET, disk: 0 });
    assert_eq!(directory.entries(), 0);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arena_behaves_like_the_model_and_repeats_itself(steps in steps()) {
        let places = run(&steps);
        let mut generations: Vec<_> = places.iter().map(|at| at.generation).collect();
        generations.sort_unstable();
        generations.dedup();
        prop_assert_eq!(generations.len(), places.len());
        prop_assert_eq!(&places, &run(&steps));
    }
}

#[test]
fn a_freed_place_is_used_again_under_another_generation() {
    let directory = Directory::new();
    let arena = directory.arena(BUDGET, SEGMENT);
    let first = seal(arena.alloc(1000).unwrap(), 1);
    let map = {
        let new = arena.take_new_segments().pop().unwrap();
        ReadMap::open(&new.fd, new.segment, new.size).unwrap()
    };
    arena.free(first).unwrap();
    assert_eq!(map.block(first).unwrap_err(), StoreError::NotHere);
    let writer = arena.alloc(1000).unwrap();
    assert_eq!(map.block(first).unwrap_err(), StoreError::NotHere);
    let second = seal(writer, 2);
    assert_eq!((second.segment, second.offset), (first.segment, first.offset));
    assert_eq!(map.block(first).unwrap_err(), StoreError::NotHere);
    assert_eq!(map.block(second).unwrap().as_ref(), pattern(2, 1000));
    assert_eq!(arena.free(first), Err(StoreError::NotHere));
    assert!(arena.take_new_segments().is_empty());
}

#[test]
fn beyond_the_budget_blocks_go_to_files_without_a_name() {
    let directory = Directory::new();
    let arena = directory.arena(BUDGET, SEGMENT);
    let held: Vec<_> = (0..BUDGET / SEGMENT).map(|_| arena.alloc(SEGMENT - 64).unwrap()).collect();
    let (small, large) = (arena.alloc(100).unwrap(), arena.alloc(3 * SEGMENT).unwrap());
    assert!(small.escaped() && large.escaped());
    assert_eq!(directory.entries(), 0);
    assert_eq!(arena.usage().memory, BUDGET);
    assert_eq!(arena.usage().disk, GRANULE + 3 * SEGMENT + GRANULE);
    let small = seal(small, 1);
    let large = seal(large, 2);
    let segments = arena.take_new_segments();
    for (location, seed) in [(small, 1), (large, 2)] {
        let new = segments.iter().find(|new| new.segment == location.segment).unwrap();
        let map = ReadMap::open(&new.fd, new.segment, new.size).unwrap();
        assert_eq!(map.block(location).unwrap().as_ref(), pattern(seed, location.len as usize));
    }
    drop(held);
    assert!(!arena.alloc(100).unwrap().escaped());
    arena.free(small).unwrap();
    arena.free(large).unwrap();
    assert_eq!(arena.usage().disk, 0);
    assert_eq!(arena.take_dropped_segments(), [small.segment, large.segment]);
}

#[test]
fn a_large_block_has_a_segment_of_its_own_that_goes_with_it() {
    let directory = Directory::new();
    let arena = directory.arena(BUDGET, SEGMENT);
    let large = seal(arena.alloc(3 * SEGMENT).unwrap(), 1);
    let small = seal(arena.alloc(10).unwrap(), 2);
    assert_ne!(large.segment, small.segment);
    assert_eq!(arena.take_new_segments().len(), 2);
    let block = arena.local(&large).unwrap();
    arena.free(large).unwrap();
    assert_eq!(arena.take_dropped_segments(), [large.segment]);
    assert_eq!(arena.usage().memory, GRANULE);
    assert_eq!(block.as_ref(), pattern(1, large.len as usize), "closed, and still mapped by the block");
    // Never announced, so there is nothing to take back either.
    drop(arena.alloc(3 * SEGMENT).unwrap());
    assert!(arena.take_new_segments().is_empty());
    assert!(arena.take_dropped_segments().is_empty());
}

#[test]
fn warm_memory_is_given_up_only_for_a_block_that_fits_then() {
    let directory = Directory::new();
    let arena = directory.arena(BUDGET, SEGMENT);
    let mut filled: Vec<_> = (0..4).map(|_| arena.alloc(SEGMENT - 64).unwrap()).collect();
    filled.truncate(2);
    assert!(arena.alloc(3 * SEGMENT).unwrap().escaped());
    assert_eq!(arena.usage().memory, BUDGET, "trimming would not have helped");
    let large = arena.alloc(2 * SEGMENT - 64).unwrap();
    assert!(!large.escaped());
    assert_eq!(arena.usage(), Usage { blocks: BUDGET, memory: BUDGET, disk: 0 });
}

#[test]
fn what_does_not_fit_anywhere_is_an_error_and_leaves_nothing() {
    let directory = Directory::new();
    let arena = directory.arena(BUDGET, SEGMENT);
    // More than a file system offers: it has no room, or does not do files of that size.
    assert!(matches!(arena.alloc(1 << 45), Err(StoreError::DiskFull { .. })));
    assert!(matches!(arena.alloc(u64::MAX), Err(StoreError::Full { .. })));
    assert!(matches!(arena.alloc(1 << 62), Err(StoreError::Full { .. })));
    assert_eq!(arena.usage(), Usage::default());
    assert!(arena.take_new_segments().is_empty());
    assert_eq!(directory.entries(), 0);
}

#[test]
fn a_missing_escape_directory_is_an_error_only_when_it_is_needed() {
    let arena = {
        let directory = Directory::new();
        directory.arena(GRANULE, SEGMENT)
    };
    let held = arena.alloc(GRANULE - 64).unwrap();
    assert!(matches!(arena.alloc(1), Err(StoreError::Os { .. })));
    drop(held);
    assert!(!arena.alloc(1).unwrap().escaped());
}

#[test]
fn threads_share_an_arena() {
    let directory = Directory::new();
    let arena = directory.arena(BUDGET, SEGMENT);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let arena = arena.clone();
            scope.spawn(move || {
                for round in 0..200 {
                    let seed = thread * 1000 + round;
                    let location = seal(arena.alloc(seed * 37 % 5000).unwrap(), seed);
                    let block = arena.local(&location).unwrap();
                    assert_eq!(block.as_ref(), pattern(seed, location.len as usize));
                    arena.free(location).unwrap();
                }
            });
        }
    });
    assert_eq!(arena.usage().blocks, 0);
}
