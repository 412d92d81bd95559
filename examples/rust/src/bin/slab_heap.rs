//! A program whose every allocation comes from mm_slab.h.

#[path = "../workload.rs"]
mod workload;

use mm::SlabHeap;

#[global_allocator]
static HEAP: SlabHeap<{ 64 << 20 }> = SlabHeap::new();

fn main() {
    workload::prove(|| HEAP.used(), || HEAP.is_healthy());
}
