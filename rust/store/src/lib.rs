//! Values in memory that several processes share.
//!
//! Each process that makes values owns an [`Arena`]: a few large segments (memfds) into which it writes values as
//! *blocks*. Another process receives a segment's descriptor once, maps the whole segment read-only ([`ReadMap`]), and
//! from then on reads any block of it by its [`Location`]. A freed block goes back to its owner, who recycles it:
//! memory that was written before is warm, and a copy into it runs at the speed of `memcpy`, which fresh memory does not.
//!
//! One process coordinates. Its [`Ledger`] knows every sealed block, who has it pinned, and when its owner may recycle it.
//!
//! # What the processes owe each other
//!
//! The compiler cannot see into other processes, so that `&[u8]` never changes while somebody holds it rests on a protocol:
//!
//! * An owner writes to a block only before it seals it, and calls [`Arena::free`] only for what the ledger returned for
//!   recycling.
//! * A reader asks for a pin first and opens the [`Block`] then; it gives the pin back when the last clone of the block
//!   is gone ([`Block::with_guard`]). If the block was recycled before the pin was in place, the generation in the block's
//!   header tells, and opening it is [`StoreError::NotHere`].
//! * Nobody but its owner maps a segment writable. The descriptors handed out are open for reading only.

//!
//! # When room is short
//!
//! Memory is reserved from the system before anything is written to it, so running out of it is an error of
//! [`Arena::alloc`] and not a signal on touching a page. What is beyond the arena's budget, or beyond what the system
//! gives, goes to unlinked files ([`Writer::escaped`]), reserved in the same way; [`StoreError::DiskFull`] is the end.

#![deny(unsafe_code)]

mod arena;
mod error;
mod file;
mod ledger;
mod location;
#[allow(unsafe_code, reason = "maps shared memory")]
mod map;
mod read;
mod space;
mod words;

pub use arena::{Arena, ArenaConfig, NewSegment, Usage, Writer};
pub use error::StoreError;
pub use ledger::{Ledger, LedgerError, Settled};
pub use location::{Location, is_file, owner};
pub use read::{Block, ReadMap};
pub use words::Words;
