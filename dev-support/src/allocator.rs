//! Allocators that count. Both pass every call to the system allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};

/// Counts the bytes that the whole process has allocated and not yet freed, once it is started.
pub struct Live;

static COUNTS: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicIsize = AtomicIsize::new(0);

impl Live {
    /// Counts from now on.
    pub fn start() {
        COUNTS.store(true, Ordering::Relaxed);
    }

    /// The bytes allocated since the start, less the bytes freed.
    pub fn bytes() -> isize {
        LIVE.load(Ordering::Relaxed)
    }

    fn count(bytes: isize) {
        if COUNTS.load(Ordering::Relaxed) {
            LIVE.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call goes unchanged to the system allocator, which keeps the contract.
unsafe impl GlobalAlloc for Live {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Live::count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Live::count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Live::count(size as isize - layout.size() as isize);
        // SAFETY: `at` came from the system with this layout, and the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        Live::count(-(layout.size() as isize));
        // SAFETY: `at` came from the system with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Counts the allocations of each thread, and refuses more than 1 GiB in one piece as if memory had
/// run out.
pub struct PerThread;

const ALL_MEMORY: usize = 1 << 30;

thread_local! {
    // These cells have no destructors and no lazy initialisers, because their use must not
    // allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

impl PerThread {
    /// The number of allocations of this thread.
    pub fn allocations() -> u64 {
        ALLOCATIONS.get()
    }

    /// The bytes that this thread has allocated, less the bytes that it has freed.
    pub fn bytes() -> isize {
        BYTES.get()
    }

    /// The largest piece that this thread has requested since the last call.
    pub fn take_largest() -> usize {
        LARGEST.take()
    }

    /// Counts a piece, unless it is refused.
    fn grants(size: usize, instead_of: usize) -> bool {
        LARGEST.set(LARGEST.get().max(size));
        if size > ALL_MEMORY {
            return false;
        }
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        let others = BYTES.get().wrapping_sub_unsigned(instead_of);
        BYTES.set(others.wrapping_add_unsigned(size));
        true
    }
}

// SAFETY: every call goes unchanged to the system allocator or is refused, which the contract
// allows; counting touches thread-local cells only.
unsafe impl GlobalAlloc for PerThread {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !PerThread::grants(layout.size(), 0) {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !PerThread::grants(size, layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: `at` came from the system with this layout, and the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub_unsigned(layout.size()));
        // SAFETY: `at` came from the system with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}
