//! Both heaps as objects: layouts of all sizes and alignments, against what Rust asks of an allocator.

use mm::{BuddyHeap, Cpu, SlabHeap};
use std::alloc::{GlobalAlloc, Layout};

struct Block {
    at: *mut u8,
    layout: Layout,
    seed: u8,
}

/// splitmix64
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn pattern(seed: u8, i: usize) -> u8 {
    (i as u8).wrapping_mul(31) ^ seed
}

impl Block {
    fn fill(&self) {
        assert_eq!(self.at as usize % self.layout.align(), 0, "{:?}", self.layout);
        for i in 0..self.layout.size() {
            unsafe { self.at.add(i).write(pattern(self.seed, i)) };
        }
    }

    fn assert_content(&self, bytes: usize) {
        for i in 0..bytes {
            assert_eq!(
                unsafe { self.at.add(i).read() },
                pattern(self.seed, i),
                "byte {i} of {:?}",
                self.layout
            );
        }
    }
}

fn some_layout(rng: &mut u64) -> Layout {
    let size = 1 + random(rng) as usize % (1 << (random(rng) % 15));
    Layout::from_size_align(size, 1 << (random(rng) % 14)).unwrap()
}

fn step(heap: &impl GlobalAlloc, blocks: &mut Vec<Block>, rng: &mut u64) {
    let n = random(rng) as usize;
    match random(rng) % 5 {
        0 | 1 if blocks.len() < 200 => {
            let layout = some_layout(rng);
            let zeroed = n % 3 == 0;
            let at = unsafe {
                if zeroed {
                    heap.alloc_zeroed(layout)
                } else {
                    heap.alloc(layout)
                }
            };
            assert!(!at.is_null());
            assert!(!zeroed || (0..layout.size()).all(|i| unsafe { at.add(i).read() } == 0));
            blocks.push(Block { at, layout, seed: n as u8 });
            blocks.last().unwrap().fill();
        }
        2 | 3 if !blocks.is_empty() => {
            let i = n % blocks.len();
            let block = &mut blocks[i];
            let size = some_layout(rng).size();
            let at = unsafe { heap.realloc(block.at, block.layout, size) };
            assert!(!at.is_null());
            let kept = size.min(block.layout.size());
            block.at = at;
            block.layout = Layout::from_size_align(size, block.layout.align()).unwrap();
            block.assert_content(kept);
            block.fill();
        }
        _ if !blocks.is_empty() => {
            let block = blocks.swap_remove(n % blocks.len());
            block.assert_content(block.layout.size());
            unsafe { heap.dealloc(block.at, block.layout) };
        }
        _ => {}
    }
}

fn torture(heap: &impl GlobalAlloc, mut rng: u64) {
    let _cpu = Cpu::claim();
    let mut blocks = Vec::new();
    for _ in 0..30_000 {
        step(heap, &mut blocks, &mut rng);
    }
    for block in blocks {
        block.assert_content(block.layout.size());
        unsafe { heap.dealloc(block.at, block.layout) };
    }
}

fn by_four_threads(heap: &(impl GlobalAlloc + Sync)) {
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || torture(heap, seed));
        }
    });
}

#[test]
fn buddy_keeps_contents_and_alignment() {
    static HEAP: BuddyHeap<{ 16 << 20 }> = BuddyHeap::new();
    by_four_threads(&HEAP);
    assert_eq!(HEAP.used(), 0);
    assert!(HEAP.is_healthy());
}

#[test]
fn slab_keeps_contents_and_alignment() {
    static HEAP: SlabHeap<{ 64 << 20 }> = SlabHeap::new();
    by_four_threads(&HEAP);
    assert!(HEAP.is_healthy());
    // the heap's own arrays are all that is left
    let own = HEAP.used();
    torture(&HEAP, 7);
    assert_eq!(HEAP.used(), own);
}

/// As many blocks as there are; each must be within the heap's memory, and all of it comes back.
fn exhaust(heap: &impl GlobalAlloc, layout: Layout) -> usize {
    let mut blocks = Vec::new();
    loop {
        let at = unsafe { heap.alloc(layout) };
        if at.is_null() {
            break;
        }
        blocks.push(at);
    }
    for &at in &blocks {
        unsafe { heap.dealloc(at, layout) };
    }
    blocks.len()
}

#[test]
fn exhaustion_is_null_and_passes() {
    static BUDDY: BuddyHeap<{ 1 << 20 }> = BuddyHeap::new();
    static SLAB: SlabHeap<{ 4 << 20 }> = SlabHeap::new();
    for layout in [Layout::new::<[u64; 8]>(), Layout::from_size_align(4096, 4096).unwrap()] {
        let first = exhaust(&BUDDY, layout);
        assert!(first > 100);
        assert_eq!(exhaust(&BUDDY, layout), first);
        let first = exhaust(&SLAB, layout);
        assert!(first > 100);
        assert_eq!(exhaust(&SLAB, layout), first);
    }
    assert_eq!(BUDDY.used(), 0);
}

#[test]
fn too_small_a_region_is_an_empty_heap() {
    static BUDDY: BuddyHeap<64> = BuddyHeap::new();
    static SLAB: SlabHeap<4096> = SlabHeap::new();
    for _ in 0..2 {
        assert!(unsafe { BUDDY.alloc(Layout::new::<u64>()) }.is_null());
        assert!(unsafe { SLAB.alloc_zeroed(Layout::new::<u64>()) }.is_null());
    }
    assert!(!BUDDY.is_healthy() && !SLAB.is_healthy());
}

#[test]
fn impossible_sizes_are_null() {
    static BUDDY: BuddyHeap<{ 1 << 20 }> = BuddyHeap::new();
    static SLAB: SlabHeap<{ 4 << 20 }> = SlabHeap::new();
    let huge = Layout::from_size_align(isize::MAX as usize - 4096, 8).unwrap();
    assert!(unsafe { BUDDY.alloc(huge) }.is_null());
    assert!(unsafe { SLAB.alloc(huge) }.is_null());
}

/// Shrunk in place, a block leaves room that others take; grown again it must move, to an address that
/// has the alignment of its layout, not that of its size.
#[test]
fn buddy_keeps_the_alignment_of_blocks_that_were_smaller_for_a_while() {
    static HEAP: BuddyHeap<{ 1 << 20 }> = BuddyHeap::new();
    let wide = Layout::from_size_align(256, 256).unwrap();
    let small = Layout::from_size_align(32, 256).unwrap();
    let plain = Layout::from_size_align(32, 1).unwrap();
    unsafe {
        let blocks: Vec<_> = (0..100).map(|_| HEAP.alloc(wide)).collect();
        let shrunk: Vec<_> = blocks.iter().map(|&at| HEAP.realloc(at, wide, 32)).collect();
        let between: Vec<_> = (0..1000).map(|_| HEAP.alloc(plain)).collect();
        let grown: Vec<_> = shrunk.iter().map(|&at| HEAP.realloc(at, small, 64)).collect();
        assert!(grown.iter().all(|&at| !at.is_null() && at as usize % 256 == 0));
        let grown_layout = Layout::from_size_align(64, 256).unwrap();
        grown.iter().for_each(|&at| HEAP.dealloc(at, grown_layout));
        between.iter().for_each(|&at| HEAP.dealloc(at, plain));
    }
    assert_eq!(HEAP.used(), 0);
}
