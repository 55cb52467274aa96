//! Bytes in memory as a source: files, buffers, tests.

use crate::frame::WINDOW;
use crate::head::{HEAD_LOAD, HEAD_WORDS, HeadSource};
use crate::stream::ByteSource;

/// A chunk that lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a>(pub &'a [u8]);

impl Slice<'_> {
    fn range(&self, from: u32, len: u32) -> Option<&[u8]> {
        self.0
            .get(from as usize..(from as usize).checked_add(len as usize)?)
    }
}

impl ByteSource for Slice<'_> {
    fn load(&mut self, from: u32, window: &mut [u8; WINDOW], at: u32, len: u32) -> bool {
        let target = window.get_mut(at as usize..(at as usize).saturating_add(len as usize));
        match (target, self.range(from, len)) {
            (Some(target), Some(bytes)) => {
                target.copy_from_slice(bytes);
                true
            }
            _ => false,
        }
    }
}

impl HeadSource for Slice<'_> {
    fn load_head(&mut self, from: u32, window: &mut [u64; HEAD_WORDS], len: u32) -> bool {
        let mut bytes = [0; HEAD_LOAD as usize];
        match (bytes.get_mut(..len as usize), self.range(from, len)) {
            (Some(target), Some(source)) => target.copy_from_slice(source),
            _ => return false,
        }
        for (word, eight) in window.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*eight);
        }
        true
    }
}
