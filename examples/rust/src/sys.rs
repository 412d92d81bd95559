//! The C functions. The structs are opaque: c/mm.c tells their sizes, and sets them up.

/// `enum mm_status`
pub type Status = i32;

pub const PA_NONE: u64 = !0;

macro_rules! opaque {
    ($($name:ident)*) => {$(
        #[repr(C)]
        pub struct $name {
            _bytes: [u8; 0],
            _not_send: core::marker::PhantomData<(*mut u8, core::marker::PhantomPinned)>,
        }
    )*};
}
opaque!(Buddy SlabHeap FramePool);

extern "C" {
    pub fn mm_rust_cpu_max() -> u32;
    pub fn mm_rust_cpu_set(cpu: u32);

    pub fn mm_rust_buddy_bytes() -> usize;
    pub fn mm_rust_buddy_init(
        b: *mut Buddy,
        memory: *mut u8,
        bytes: usize,
        min_shift: u32,
    ) -> Status;
    pub fn mm_rust_buddy_used(b: *const Buddy) -> u64;
    pub fn mm_buddy_malloc(b: *mut Buddy, size: usize) -> *mut u8;
    pub fn mm_buddy_calloc(b: *mut Buddy, count: usize, size: usize) -> *mut u8;
    pub fn mm_buddy_memalign(b: *mut Buddy, align: usize, size: usize) -> *mut u8;
    pub fn mm_buddy_realloc(b: *mut Buddy, old: *mut u8, size: usize) -> *mut u8;
    pub fn mm_buddy_mfree(b: *mut Buddy, block: *mut u8) -> Status;
    pub fn mm_buddy_check(b: *mut Buddy) -> u32;

    pub fn mm_rust_slab_bytes() -> usize;
    pub fn mm_rust_slab_init(slab: *mut SlabHeap, pages: *mut Buddy) -> Status;
    pub fn mm_rust_slab_used(slab: *mut SlabHeap) -> u64;
    pub fn mm_slab_kmalloc(heap: *mut SlabHeap, size: usize, flags: u32) -> *mut u8;
    pub fn mm_slab_kmalloc_aligned(
        heap: *mut SlabHeap,
        size: usize,
        align: usize,
        flags: u32,
    ) -> *mut u8;
    pub fn mm_slab_krealloc_aligned(
        heap: *mut SlabHeap,
        p: *mut u8,
        size: usize,
        align: usize,
        flags: u32,
    ) -> *mut u8;
    pub fn mm_slab_kfree(heap: *mut SlabHeap, p: *mut u8) -> Status;
    pub fn mm_slab_check(heap: *mut SlabHeap) -> Status;

    pub fn mm_rust_frame_bytes() -> usize;
    pub fn mm_rust_frame_meta(base: u64, bytes: u64) -> usize;
    pub fn mm_rust_frame_init(
        pool: *mut FramePool,
        base: u64,
        bytes: u64,
        meta: *mut u8,
        meta_bytes: usize,
    ) -> Status;
    pub fn mm_frame_alloc_order(pool: *mut FramePool, order: u32, flags: u32) -> u64;
    pub fn mm_frame_free_order(pool: *mut FramePool, pa: u64, order: u32) -> Status;
    pub fn mm_frame_free_count(pool: *mut FramePool, zone: u32) -> u64;
    pub fn mm_frame_check(pool: *mut FramePool, expected_used: u64, what: *mut *const u8) -> u32;
}

/// Flag of an allocation in mm_slab.h
pub const SLAB_ZERO: u32 = 2;
