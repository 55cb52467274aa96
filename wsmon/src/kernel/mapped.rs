//! Arrays that the kernel programs write and user space reads, without a system call.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use memmap2::{MmapOptions, MmapRaw};

/// A BPF array with `BPF_F_MMAPABLE`, mapped.
pub struct Mapped<T> {
    memory: MmapRaw,
    len: usize,
    _of: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway; every access is by volatile words.
unsafe impl<T> Send for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    /// Maps `len` values of an array whose values have the size of `T`, a multiple of 8.
    pub fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let memory = MmapOptions::new()
            .len(len * size_of::<T>())
            .map_raw(map.as_raw_fd())?;
        Ok(Self {
            memory,
            len,
            _of: PhantomData,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// A copy of a value: each aligned word of it is whole, while the kernel goes on writing.
    pub fn get(&self, index: usize) -> Option<T> {
        let from = self.pointer(index)?.cast::<u64>();
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr().cast::<u64>();
        for word in 0..size_of::<T>() / 8 {
            // SAFETY: both have the size of T; values of T are plain integers.
            unsafe { to.add(word).write_unaligned(from.add(word).read_volatile()) };
        }
        // SAFETY: every byte was written.
        Some(unsafe { value.assume_init() })
    }

    /// Where a value lies.
    pub fn pointer(&self, index: usize) -> Option<*mut T> {
        // SAFETY: inside the mapping.
        (index < self.len).then(|| unsafe { self.memory.as_mut_ptr().cast::<T>().add(index) })
    }
}
