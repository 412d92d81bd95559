//! Page frames that free themselves.

use crate::region::padded;
use crate::{result, sys, Error};
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

/// Bytes of a frame.
pub const PAGE_SIZE: u64 = 4096;

/// The frames of one range of physical memory, which is never touched. Any thread may use it.
pub struct Pool<'a> {
    raw: *mut sys::FramePool,
    _memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: all calls made through &Pool are safe from any CPU.
unsafe impl Send for Pool<'_> {}
unsafe impl Sync for Pool<'_> {}

impl<'a> Pool<'a> {
    /// Bytes of memory that [`Pool::new`] needs for frames from `base` to `base + bytes`.
    pub fn memory_needed(base: u64, bytes: u64) -> usize {
        unsafe { padded(sys::mm_rust_frame_bytes()) + sys::mm_rust_frame_meta(base, bytes) + 63 }
    }

    /// A pool of the whole frames in `bytes` bytes from `base`; its state is kept in `memory`.
    pub fn new(memory: &'a mut [u8], base: u64, bytes: u64) -> Result<Pool<'a>, Error> {
        let own = padded(unsafe { sys::mm_rust_frame_bytes() });
        let skip = memory.as_ptr().align_offset(64);
        let room = memory.len().checked_sub(skip + own).ok_or(Error::NoMemory)?;
        // SAFETY: both parts lie in `memory`, which is borrowed for as long as the pool lives.
        unsafe {
            let raw: *mut sys::FramePool = memory.as_mut_ptr().add(skip).cast();
            let meta = memory.as_mut_ptr().add(skip + own);
            result(sys::mm_rust_frame_init(raw, base, bytes, meta, room))?;
            Ok(Pool { raw, _memory: PhantomData })
        }
    }

    /// One frame.
    pub fn alloc(&self) -> Option<Frame<'_>> {
        self.alloc_order(0)
    }

    /// 2^`order` frames in a row, aligned to their size.
    pub fn alloc_order(&self, order: u32) -> Option<Frame<'_>> {
        match unsafe { sys::mm_frame_alloc_order(self.raw, order, 0) } {
            sys::PA_NONE => None,
            pa => Some(Frame { pool: self, pa, order }),
        }
    }

    /// Frames that are free.
    pub fn free_frames(&self) -> u64 {
        unsafe { sys::mm_frame_free_count(self.raw, 0) }
    }

    /// Checks the pool. `Err(Error::Corrupt)` if it is damaged, `Err(Error::Busy)` if other than `used`
    /// frames are in use. `&mut`: nobody else may use it meanwhile, and no [`Frame`] is around.
    pub fn check(&mut self, used: u64) -> Result<(), Error> {
        match unsafe { sys::mm_frame_check(self.raw, used, core::ptr::null_mut()) } {
            0 => Ok(()),
            1 => Err(Error::Busy),
            _ => Err(Error::Corrupt),
        }
    }

    /// Makes a guard again of what [`Frame::keep`] returned.
    ///
    /// # Errors
    /// None here: a wrong address shows when the guard is dropped, and frees nothing.
    ///
    /// # Safety
    /// The frames were allocated from this pool with this order, and nobody else will free them.
    pub unsafe fn adopt(&self, pa: u64, order: u32) -> Frame<'_> {
        Frame { pool: self, pa, order }
    }

    /// Frees frames by address. Double and wild frees are refused, and change nothing.
    ///
    /// # Safety
    /// Nobody uses the frames any more, and no [`Frame`] stands for them.
    pub unsafe fn free(&self, pa: u64, order: u32) -> Result<(), Error> {
        result(unsafe { sys::mm_frame_free_order(self.raw, pa, order) })
    }
}

/// Frames that are freed when this is dropped.
#[derive(Debug)]
pub struct Frame<'p> {
    pool: &'p Pool<'p>,
    pa: u64,
    order: u32,
}

impl core::fmt::Debug for Pool<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Pool({} free)", self.free_frames())
    }
}

impl Frame<'_> {
    /// Physical address of the first byte.
    pub fn pa(&self) -> u64 {
        self.pa
    }

    /// Bytes of all frames.
    pub fn bytes(&self) -> u64 {
        PAGE_SIZE << self.order
    }

    /// Gives the frames to the caller: they stay allocated.
    pub fn keep(self) -> u64 {
        ManuallyDrop::new(self).pa
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        let status = unsafe { sys::mm_frame_free_order(self.pool.raw, self.pa, self.order) };
        debug_assert_eq!(status, 0, "free of {:#x}", self.pa);
    }
}
