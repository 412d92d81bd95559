//! Frames as values: what goes out of scope is free again.

use mm::{Error, Frame, Pool, PAGE_SIZE};

/// Frames of a buffer for a device, or none: what was allocated before a failure goes back by itself.
fn buffer<'p>(pool: &'p Pool<'p>, frames: usize) -> Option<Vec<Frame<'p>>> {
    (0..frames).map(|_| pool.alloc()).collect()
}

fn main() -> Result<(), Error> {
    const BASE: u64 = 0x4000_0000;
    const BYTES: u64 = 64 << 20; // of memory that need not exist
    let mut memory = vec![0; Pool::memory_needed(BASE, BYTES)];
    let mut pool = Pool::new(&mut memory, BASE, BYTES)?;
    let all = pool.free_frames();
    println!("{all} frames");

    {
        let frame = pool.alloc().ok_or(Error::NoMemory)?;
        let huge = pool.alloc_order(9).ok_or(Error::NoMemory)?;
        println!("a frame at {:#x}, {} MiB at {:#x}", frame.pa(), huge.bytes() >> 20, huge.pa());
        println!("{} frames", pool.free_frames());
    }
    println!("out of scope: {} frames", pool.free_frames());

    println!(
        "a buffer of 100 MiB: {:?}",
        buffer(&pool, (100 << 20) / PAGE_SIZE as usize).map(|b| b.len())
    );
    println!("and no leak: {} frames", pool.free_frames());

    let kept = pool.alloc().ok_or(Error::NoMemory)?.keep();
    println!("kept: {} frames", pool.free_frames());
    // SAFETY: nobody uses it, and its guard is gone
    unsafe {
        pool.free(kept, 0)?;
        println!("freed twice: {:?}", pool.free(kept, 0));
    }
    assert_eq!(pool.free_frames(), all);
    pool.check(0)
}
