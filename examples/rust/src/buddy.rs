//! A heap of power-of-two blocks.

use crate::region::{padded, Region};
use crate::sys;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;

/// log2 of the smallest block: every block is aligned to as much.
const MIN_SHIFT: u32 = 5;

/// `N` bytes as a heap: its own struct first, then the arena with its metadata inside.
///
/// ```
/// use mm::BuddyHeap;
///
/// #[global_allocator]
/// static HEAP: BuddyHeap<{ 64 << 20 }> = BuddyHeap::new();
///
/// # fn main() {
/// let text: String = "from the heap".into();
/// assert!(HEAP.used() >= text.len() as u64);
/// # }
/// ```
pub struct BuddyHeap<const N: usize> {
    region: Region<N>,
}

fn init(memory: *mut u8, bytes: usize) -> bool {
    // SAFETY: `memory` has `bytes` bytes, is aligned to a page and nobody else's.
    unsafe {
        let own = padded(sys::mm_rust_buddy_bytes());
        own < bytes
            && sys::mm_rust_buddy_init(memory.cast(), memory.add(own), bytes - own, MIN_SHIFT) == 0
    }
}

impl<const N: usize> BuddyHeap<N> {
    /// An empty heap; it is set up at the first use.
    pub const fn new() -> Self {
        BuddyHeap { region: Region::new() }
    }

    fn raw(&self) -> *mut sys::Buddy {
        self.region.get(init).cast()
    }

    /// Bytes in use, rounded up to blocks.
    pub fn used(&self) -> u64 {
        let raw = self.raw();
        if raw.is_null() {
            return 0;
        }
        unsafe { sys::mm_rust_buddy_used(raw) }
    }

    /// Checks all invariants of the heap.
    pub fn is_healthy(&self) -> bool {
        let raw = self.raw();
        !raw.is_null() && unsafe { sys::mm_buddy_check(raw) } == 0
    }
}

impl<const N: usize> Default for BuddyHeap<N> {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: the calls are safe from any thread, blocks do not overlap, and each is aligned to its size
// rounded up to a power of two, or to what mm_buddy_memalign was asked for.
unsafe impl<const N: usize> GlobalAlloc for BuddyHeap<N> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let raw = self.raw();
        if raw.is_null() {
            return null_mut();
        }
        unsafe {
            if layout.align() <= layout.size() {
                sys::mm_buddy_malloc(raw, layout.size())
            } else {
                sys::mm_buddy_memalign(raw, layout.align(), layout.size())
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        let status = unsafe { sys::mm_buddy_mfree(self.raw(), block) };
        debug_assert_eq!(status, 0, "free of {block:?}");
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let raw = self.raw();
        if !raw.is_null() && layout.align() <= layout.size() {
            return unsafe { sys::mm_buddy_calloc(raw, 1, layout.size()) };
        }
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // A block that moves is aligned to its new size: that must be enough.
        if layout.align() <= size || layout.align() <= 1 << MIN_SHIFT {
            return unsafe { sys::mm_buddy_realloc(self.raw(), block, size) };
        }
        // SAFETY: the caller vouches for `size`
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            unsafe {
                moved.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
    }
}
