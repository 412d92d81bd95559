//! The guard of a frame: what is dropped is free, what is kept is not.

use mm::{Error, Pool};

const BASE: u64 = 1 << 32;
const BYTES: u64 = 32 << 20;
const FRAMES: u64 = BYTES / 4096;

fn memory() -> Vec<u8> {
    vec![0xa5; Pool::memory_needed(BASE, BYTES)]
}

#[test]
fn a_dropped_frame_is_free() {
    let mut memory = memory();
    let mut pool = Pool::new(&mut memory, BASE, BYTES).unwrap();
    {
        let frame = pool.alloc().unwrap();
        assert!((BASE..BASE + BYTES).contains(&frame.pa()));
        assert_eq!(pool.free_frames(), FRAMES - 1);
    }
    assert_eq!(pool.check(0), Ok(()));
    assert_eq!(pool.free_frames(), FRAMES);
}

#[test]
fn a_frame_is_freed_when_a_panic_unwinds() {
    let mut memory = memory();
    let pool = Pool::new(&mut memory, BASE, BYTES).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _frame = pool.alloc_order(4);
        assert_eq!(pool.free_frames(), FRAMES - 16);
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(result.is_err());
    assert_eq!(pool.free_frames(), FRAMES);
}

#[test]
fn a_kept_frame_stays_and_is_adopted() {
    let mut memory = memory();
    let mut pool = Pool::new(&mut memory, BASE, BYTES).unwrap();
    let pa = pool.alloc_order(3).unwrap().keep();
    assert_eq!(pool.check(0), Err(Error::Busy));
    assert_eq!(pool.check(8), Ok(()));
    drop(unsafe { pool.adopt(pa, 3) });
    assert_eq!(pool.check(0), Ok(()));
}

#[test]
fn misuse_is_refused() {
    let mut memory = memory();
    let mut pool = Pool::new(&mut memory, BASE, BYTES).unwrap();
    let pa = pool.alloc().unwrap().keep();
    unsafe {
        assert_eq!(pool.free(pa + 1, 0), Err(Error::Align));
        assert_eq!(pool.free(BASE - 4096, 0), Err(Error::Invalid));
        assert_eq!(pool.free(pa, 0), Ok(()));
        assert_eq!(pool.free(pa, 0), Err(Error::Invalid));
    }
    assert_eq!(pool.check(0), Ok(()));
}

#[test]
fn all_frames_come_once() {
    let mut memory = memory();
    let pool = Pool::new(&mut memory, BASE, BYTES).unwrap();
    let mut frames: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    frames.sort_by_key(|frame| frame.pa());
    assert_eq!(frames.len() as u64, FRAMES);
    assert!(frames.windows(2).all(|pair| pair[0].pa() < pair[1].pa()));
    assert!(pool.alloc().is_none());
    drop(frames);
    assert_eq!(pool.free_frames(), FRAMES);
}

#[test]
fn too_little_memory_is_refused() {
    let needed = Pool::memory_needed(BASE, BYTES);
    for short in [0, 64, needed / 2, needed - 1000] {
        let mut memory = vec![0; short];
        assert_eq!(Pool::new(&mut memory, BASE, BYTES).err(), Some(Error::NoMemory));
    }
}

#[test]
fn threads_share_a_pool() {
    let mut memory = memory();
    let pool = Pool::new(&mut memory, BASE, BYTES).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _cpu = mm::Cpu::claim();
                for n in 0..2_000 {
                    let held: Vec<_> =
                        (0..n % 50).filter_map(|order| pool.alloc_order(order % 3)).collect();
                    assert_eq!(held.len(), n as usize % 50);
                }
            });
        }
    });
    assert_eq!(pool.free_frames(), FRAMES);
}
