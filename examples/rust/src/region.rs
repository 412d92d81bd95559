//! Memory that is set up at its first use, by whichever thread comes first.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU8, Ordering};

const NEW: u8 = 0;
const BUSY: u8 = 1;
const READY: u8 = 2;
const FAILED: u8 = 3;

/// `N` bytes in .bss, and whether they have been set up. A kernel that sets its heap up before the
/// second CPU starts needs no such state.
#[repr(C, align(4096))]
pub struct Region<const N: usize> {
    memory: UnsafeCell<[u8; N]>,
    state: AtomicU8,
}

// The memory is the heap's, which any CPU may call.
unsafe impl<const N: usize> Sync for Region<N> {}

impl<const N: usize> Region<N> {
    pub const fn new() -> Self {
        Region { memory: UnsafeCell::new([0; N]), state: AtomicU8::new(NEW) }
    }

    /// The memory, after `init` has been called for it once and returned true; null if it returned false.
    #[inline]
    pub fn get(&self, init: fn(memory: *mut u8, bytes: usize) -> bool) -> *mut u8 {
        if self.state.load(Ordering::Acquire) == READY {
            return self.memory.get().cast();
        }
        self.get_slowly(init)
    }

    #[cold]
    fn get_slowly(&self, init: fn(*mut u8, usize) -> bool) -> *mut u8 {
        let memory: *mut u8 = self.memory.get().cast();
        loop {
            match self.state.compare_exchange(NEW, BUSY, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => {
                    let state = if init(memory, N) { READY } else { FAILED };
                    self.state.store(state, Ordering::Release);
                }
                Err(READY) => return memory,
                Err(FAILED) => return core::ptr::null_mut(),
                Err(_) => spin_loop(),
            }
        }
    }
}

/// Bytes of an object at the start of a region, so that what follows is aligned to a cache line.
pub const fn padded(bytes: usize) -> usize {
    (bytes + 63) & !63
}
