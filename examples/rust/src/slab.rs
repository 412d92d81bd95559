//! A heap of size classes over an arena of pages.

use crate::region::{padded, Region};
use crate::sys;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;

/// log2 of a page
const PAGE_SHIFT: u32 = 12;

/// `N` bytes as a heap: the structs of both headers first, then the arena of pages that the slabs come
/// from.
///
/// ```
/// use mm::SlabHeap;
///
/// #[global_allocator]
/// static HEAP: SlabHeap<{ 64 << 20 }> = SlabHeap::new();
///
/// # fn main() {
/// assert_eq!(vec![1, 2, 3].iter().sum::<i32>(), 6);
/// # }
/// ```
pub struct SlabHeap<const N: usize> {
    region: Region<N>,
}

fn init(memory: *mut u8, bytes: usize) -> bool {
    // SAFETY: `memory` has `bytes` bytes, is aligned to a page and nobody else's.
    unsafe {
        let slab = padded(sys::mm_rust_slab_bytes());
        let own = slab + padded(sys::mm_rust_buddy_bytes());
        if own >= bytes {
            return false;
        }
        let pages: *mut sys::Buddy = memory.add(slab).cast();
        sys::mm_rust_buddy_init(pages, memory.add(own), bytes - own, PAGE_SHIFT) == 0
            && sys::mm_rust_slab_init(memory.cast(), pages) == 0
    }
}

/// Do all objects of `layout.size()` bytes have the alignment? Classes are multiples of 16, but for that
/// of 8 bytes.
fn is_plain(layout: Layout) -> bool {
    layout.align() <= 8 || (layout.align() == 16 && layout.size() > 8)
}

impl<const N: usize> SlabHeap<N> {
    /// An empty heap; it is set up at the first use.
    pub const fn new() -> Self {
        SlabHeap { region: Region::new() }
    }

    fn raw(&self) -> *mut sys::SlabHeap {
        self.region.get(init).cast()
    }

    /// Bytes of slabs and large objects, after caches were emptied. No other thread may use the heap
    /// meanwhile.
    pub fn used(&self) -> u64 {
        let raw = self.raw();
        if raw.is_null() {
            return 0;
        }
        unsafe { sys::mm_rust_slab_used(raw) }
    }

    /// Checks all invariants of the heap. No other thread may use it meanwhile.
    pub fn is_healthy(&self) -> bool {
        let raw = self.raw();
        !raw.is_null() && unsafe { sys::mm_slab_check(raw) } == 0
    }
}

impl<const N: usize> Default for SlabHeap<N> {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: the calls are safe from any thread, objects do not overlap, and are aligned as asked for.
unsafe impl<const N: usize> GlobalAlloc for SlabHeap<N> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let raw = self.raw();
        if raw.is_null() {
            return null_mut();
        }
        unsafe {
            if is_plain(layout) {
                sys::mm_slab_kmalloc(raw, layout.size(), 0)
            } else {
                sys::mm_slab_kmalloc_aligned(raw, layout.size(), layout.align(), 0)
            }
        }
    }

    unsafe fn dealloc(&self, object: *mut u8, _layout: Layout) {
        let status = unsafe { sys::mm_slab_kfree(self.raw(), object) };
        debug_assert_eq!(status, 0, "free of {object:?}");
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let raw = self.raw();
        if raw.is_null() {
            return null_mut();
        }
        unsafe { sys::mm_slab_kmalloc_aligned(raw, layout.size(), layout.align(), sys::SLAB_ZERO) }
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { sys::mm_slab_krealloc_aligned(self.raw(), object, size, layout.align(), 0) }
    }
}
