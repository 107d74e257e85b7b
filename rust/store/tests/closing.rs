//! What is mapped and open when everything is dropped. Alone in its process, which has no other segments.

mod support;

use std::fs;

use eagleray_store::{ReadMap, Words};
use support::{Directory, pattern, seal};

const SEGMENT: u64 = 1 << 20;

/// Mappings and descriptors of segments and pages.
fn in_use() -> (usize, usize) {
    let ours = |name: &str| name.contains("memfd:eagleray") || name.contains("segment-");
    let maps = fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| ours(line)).count();
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    (maps, links.filter(|link| ours(&link.to_string_lossy())).count())
}

#[test]
fn nothing_stays_mapped_or_open() {
    let directory = Directory::new();
    let arena = directory.arena(2 * SEGMENT, SEGMENT);
    assert_eq!(in_use(), (0, 0));

    let small = seal(arena.alloc(10).unwrap(), 1);
    // Two mappings, and a descriptor each for us and for others.
    assert_eq!(in_use(), (2, 2));
    let new = arena.take_new_segments().pop().unwrap();
    let reader = ReadMap::open(new.fd, new.segment, new.size).unwrap();
    assert_eq!(in_use(), (3, 1));

    let large = seal(arena.alloc(3 * SEGMENT / 2).unwrap(), 2);
    assert_eq!(in_use(), (5, 3));
    arena.free(large).unwrap();
    assert_eq!(in_use(), (3, 1));

    let escaped = seal(arena.alloc(4 * SEGMENT).unwrap(), 3);
    let block = arena.local(&escaped).unwrap();
    assert_eq!(in_use(), (5, 3));

    let writer = arena.alloc(100).unwrap();
    drop(arena);
    assert_eq!(in_use(), (5, 3), "the writer keeps the arena");
    drop(writer);
    assert_eq!(in_use(), (2, 0), "what readers have");
    assert_eq!(reader.block(small).unwrap().as_ref(), pattern(1, 10));
    assert_eq!(block.as_ref(), pattern(3, escaped.len as usize));
    drop((reader, block));
    assert_eq!(in_use(), (0, 0));

    let (words, fd) = Words::create().unwrap();
    assert_eq!(in_use(), (1, 1));
    drop((words, fd));
    assert_eq!(in_use(), (0, 0));
}
