//! Kernel memory management in Rust over the single-file C headers: heaps for `#[global_allocator]`
//! and frames that free themselves. Needs neither `std` nor `alloc` nor any other crate.
//!
//! - [`BuddyHeap`]: one region, power-of-two blocks (`mm_buddy.h`)
//! - [`SlabHeap`]: size classes in slabs whose pages come from an arena of pages (`mm_slab.h` over
//!   `mm_buddy.h`)
//! - [`Pool`] and [`Frame`]: page frames, freed when their guard is dropped (`mm_frame.h`)
//! - [`Cpu`]: which per-CPU caches this thread uses

#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

mod buddy;
mod cpu;
mod frame;
mod region;
mod slab;
mod sys;

pub use buddy::BuddyHeap;
pub use cpu::Cpu;
pub use frame::{Frame, Pool, PAGE_SIZE};
pub use slab::SlabHeap;

/// What a call of the headers that failed returned (`enum mm_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Out of memory
    NoMemory,
    /// Invalid argument or state: a double free too
    Invalid,
    /// Permission denied
    Permission,
    /// Misaligned address or size
    Align,
    /// In use
    Busy,
    /// Structure damaged
    Corrupt,
    /// Another status of the headers
    Other(i32),
}

fn result(status: sys::Status) -> Result<(), Error> {
    match status {
        0 => Ok(()),
        -1 => Err(Error::NoMemory),
        -2 => Err(Error::Invalid),
        -3 => Err(Error::Permission),
        -4 => Err(Error::Align),
        -7 => Err(Error::Busy),
        -9 => Err(Error::Corrupt),
        other => Err(Error::Other(other)),
    }
}
