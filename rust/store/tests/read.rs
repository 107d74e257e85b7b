//! Readers: other processes, guards, and descriptors that are not what they should be.

mod support;

use std::any::Any;
use std::fs::File;
use std::io::{Write, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use eagleray_store::{Location, ReadMap, StoreError, Words};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use support::{Directory, pattern, seal};

const SEGMENT: u64 = 1 << 20;
const LOCATION: &str = "EAGLERAY_STORE_TEST_LOCATION";

fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("eagleray-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, size).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

#[test]
fn another_process_reads_what_this_one_sealed() {
    let directory = Directory::new();
    let arena = directory.arena(SEGMENT, SEGMENT);
    drop(arena.alloc(100).unwrap());
    let location = seal(arena.alloc(5000).unwrap(), 9);
    let new = arena.take_new_segments().pop().unwrap();
    let Location { segment, offset, len, generation } = location;
    // The segment is the child's standard input.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_the_other_process", "--ignored"])
        .env(LOCATION, format!("{segment} {offset} {len} {generation} {}", new.size))
        .stdin(Stdio::from(new.fd))
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[test]
#[ignore = "started by another_process_reads_what_this_one_sealed"]
fn as_the_other_process() {
    let words: Vec<u64> = std::env::var(LOCATION).unwrap().split(' ').map(|word| word.parse().unwrap()).collect();
    let &[segment, offset, len, generation, size] = words.as_slice() else { panic!("five words are sent") };
    let location = Location { segment, offset, len, generation };
    let map = ReadMap::open(stdin(), segment, size).unwrap();
    assert_eq!(map.block(location).unwrap().as_ref(), pattern(9, 5000));
    assert_eq!(map.block(Location { generation: generation + 1, ..location }).unwrap_err(), StoreError::NotHere);
}

#[test]
fn a_location_must_be_that_of_a_sealed_block() {
    let directory = Directory::new();
    let arena = directory.arena(SEGMENT, SEGMENT);
    let location = seal(arena.alloc(1000).unwrap(), 1);
    let unsealed = arena.alloc(1000).unwrap();
    let new = arena.take_new_segments().pop().unwrap();
    let map = ReadMap::open(&new.fd, new.segment, new.size).unwrap();
    assert_eq!(map.segment(), location.segment);
    let wrong = [
        Location { segment: location.segment + 1, ..location },
        Location { offset: location.offset + 8, ..location },
        Location { offset: location.offset + 64, ..location },
        Location { offset: 0, ..location },
        Location { offset: u64::MAX - 63, ..location },
        Location { len: location.len - 1, ..location },
        Location { len: u64::MAX, ..location },
        Location { generation: location.generation + 1, ..location },
        // Where the unsealed block will be.
        Location { offset: location.offset + 64 + 1024, generation: location.generation + 1, ..location },
    ];
    for location in wrong {
        assert_eq!(map.block(location).unwrap_err(), StoreError::NotHere, "{location:?}");
        assert!(arena.local(&location).is_none());
    }
    assert_eq!(arena.free(Location { segment: 0, ..location }), Err(StoreError::NotHere));
    assert_eq!(arena.free(Location { offset: 0, ..location }), Err(StoreError::NotHere));
    assert_eq!(arena.free(Location { len: 1, ..location }), Err(StoreError::NotHere));
    let sealed = unsealed.seal();
    assert_eq!(sealed, Location { ..wrong[8] });
    assert!(map.block(sealed).is_ok());
}

#[test]
fn the_guard_goes_with_the_last_clone() {
    let directory = Directory::new();
    let arena = directory.arena(SEGMENT, SEGMENT);
    let location = seal(arena.alloc(10).unwrap(), 1);
    let guard: Arc<dyn Any + Send + Sync> = Arc::new(());
    let block = arena.local(&location).unwrap().with_guard(Arc::clone(&guard));
    let clone = block.clone();
    drop(block);
    assert_eq!(Arc::strong_count(&guard), 2);
    assert_eq!(clone.as_ref(), pattern(1, 10));
    assert_eq!(clone.location(), location);
    drop(clone);
    assert_eq!(Arc::strong_count(&guard), 1);
}

#[test]
fn a_segment_that_could_raise_sigbus_is_refused() {
    let refused = |fd: &OwnedFd, segment, size| match ReadMap::open(fd, segment, size) {
        Err(StoreError::BadSegment(why)) => why,
        other => panic!("{other:?}"),
    };
    let sealed = memfd(4096, SealFlags::SHRINK);
    assert!(ReadMap::open(&sealed, 0, 4096).is_ok());
    assert_eq!(refused(&sealed, 0, 4097), "shorter than announced");
    assert_eq!(refused(&sealed, 0, 0), "empty");
    assert_eq!(refused(&memfd(4096, SealFlags::GROW), 0, 4096), "not sealed against shrinking");
    let (pipe, _end) = std::io::pipe().unwrap();
    assert_eq!(refused(&pipe.into(), 0, 4096), "not a file");

    let directory = Directory::new();
    let arena = directory.arena(0, SEGMENT);
    let _block = arena.alloc(10).unwrap().seal();
    let file = arena.take_new_segments().pop().unwrap();
    assert!(ReadMap::open(&file.fd, file.segment, file.size).is_ok());
    assert_eq!(refused(&file.fd, file.segment, file.size + 1), "shorter than announced");
    // A file that claims to be a memory segment.
    ReadMap::open(&file.fd, 0, file.size).unwrap_err();
}

#[test]
fn nobody_else_can_write_to_a_segment() {
    let directory = Directory::new();
    for budget in [SEGMENT, 0] {
        let arena = directory.arena(budget, SEGMENT);
        let _block = arena.alloc(10).unwrap().seal();
        let new = arena.take_new_segments().pop().unwrap();
        let mut file = File::from(new.fd);
        file.write_all(b"x").unwrap_err();
        file.set_len(0).unwrap_err();
    }
}

#[test]
fn words_are_shared() {
    let (ours, fd) = Words::create().unwrap();
    let theirs = Words::open(fd).unwrap();
    assert_eq!(ours.words().len(), Words::COUNT);
    assert!(ours.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
    ours.words()[3].store(5, Ordering::Release);
    assert_eq!(theirs.words()[3].fetch_add(1, Ordering::AcqRel), 5);
    theirs.words()[Words::COUNT - 1].store(7, Ordering::Release);
    assert_eq!(ours.words()[3].load(Ordering::Acquire), 6);
    assert_eq!(ours.words()[Words::COUNT - 1].load(Ordering::Acquire), 7);
}

#[test]
fn words_must_be_a_sealed_page() {
    let short = memfd(100, SealFlags::SHRINK);
    assert_eq!(Words::open(&short).unwrap_err(), StoreError::BadSegment("shorter than announced"));
    let unsealed = memfd(4096, SealFlags::empty());
    assert!(matches!(Words::open(unsealed.as_fd()), Err(StoreError::BadSegment(_))));
}
