//! A program whose every allocation comes from mm_buddy.h.

#[path = "../workload.rs"]
mod workload;

use mm::BuddyHeap;

#[global_allocator]
static HEAP: BuddyHeap<{ 64 << 20 }> = BuddyHeap::new();

fn main() {
    workload::prove(|| HEAP.used(), || HEAP.is_healthy());
}
