//! Numbers of CPUs, which in a program are numbers of threads.

use crate::sys;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// While it lives, this thread allocates and frees through the caches of one CPU number, which no other
/// thread has. Without it everything works too, but each call goes to the shared structures.
///
/// In a kernel there is nothing to claim: `MM_CPU_ID()` reads the CPU's number, and `MM_CPU_PIN` keeps
/// the thread where it is.
pub struct Cpu {
    number: u32,
    _this_thread: PhantomData<*mut u8>,
}

impl Cpu {
    /// Claims a number; `None` if all are taken. One at a time for each thread.
    pub fn claim() -> Option<Cpu> {
        let all = unsafe { sys::mm_rust_cpu_max() };
        let mut taken = TAKEN.load(Ordering::Relaxed);
        loop {
            let number = (!taken).trailing_zeros();
            if number >= all {
                return None;
            }
            let more = taken | 1 << number;
            // Acquire: what the thread before did with the number's caches is seen
            match TAKEN.compare_exchange_weak(taken, more, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    unsafe { sys::mm_rust_cpu_set(number) };
                    return Some(Cpu { number, _this_thread: PhantomData });
                }
                Err(now) => taken = now,
            }
        }
    }

    /// The number claimed.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        unsafe { sys::mm_rust_cpu_set(sys::mm_rust_cpu_max()) };
        TAKEN.fetch_and(!(1 << self.number), Ordering::Release);
    }
}
