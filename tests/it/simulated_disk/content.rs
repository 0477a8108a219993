//! The bytes of one file, in blocks that copies share until one of them is written to.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

/// Bytes in a block: what a file takes from the disk's space at once, and what a copy shares.
pub const BLOCK: usize = 4096;

/// Bound on a file's length, so that a wild offset is refused as a real file system does it.
const LENGTH_MAX: u64 = 1 << 36;

/// A file's bytes. A copy costs one pointer a block. Blocks never written to take no space.
///
/// Bytes of a block that are beyond the length are zero.
#[derive(Debug, Clone, Default)]
pub struct Content {
    blocks: Vec<Option<Arc<[u8; BLOCK]>>>,
    length: usize,
}

impl Content {
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    /// Bytes of the disk's space that the file takes.
    pub fn allocated(&self) -> u64 {
        (self.blocks.iter().flatten().count() * BLOCK) as u64
    }

    /// Tells whether a file may reach up to `end`.
    pub fn check_length(end: Option<u64>) -> io::Result<()> {
        match end {
            Some(end) if end <= LENGTH_MAX => Ok(()),
            _ => Err(Errno::FBIG.into()),
        }
    }

    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for part in parts(offset, buffer.len(), BLOCK) {
            let into = &mut buffer[part.at..part.at + part.length];
            match &self.blocks[part.unit] {
                Some(block) => into.copy_from_slice(&block[part.inside..][..part.length]),
                None => into.fill(0),
            }
        }
        Ok(())
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset as usize + bytes.len();
        if end > self.length {
            self.set_length(end as u64);
        }
        for part in parts(offset, bytes.len(), BLOCK) {
            let block = self.blocks[part.unit].get_or_insert_with(|| Arc::new([0; BLOCK]));
            let from = &bytes[part.at..part.at + part.length];
            if part.length == BLOCK {
                // Spares copying the block first when others share it.
                *block = Arc::new(from.try_into().unwrap());
            } else {
                Arc::make_mut(block)[part.inside..][..part.length].copy_from_slice(from);
            }
        }
    }

    /// Cuts the content, or lets it grow with zeros.
    pub fn set_length(&mut self, length: u64) {
        let length = length as usize;
        self.blocks.resize(length.div_ceil(BLOCK), None);
        if length < self.length
            && !length.is_multiple_of(BLOCK)
            && let Some(Some(last)) = self.blocks.last_mut()
        {
            Arc::make_mut(last)[length % BLOCK..].fill(0);
        }
        self.length = length;
    }

    /// How many bytes of a write can be made, from its first on, with `free` bytes of space.
    pub fn room(&self, offset: u64, length: usize, mut free: u64) -> usize {
        for part in parts(offset, length, BLOCK) {
            if matches!(self.blocks.get(part.unit), Some(Some(_))) {
                continue;
            }
            if free < BLOCK as u64 {
                return part.at;
            }
            free -= BLOCK as u64;
        }
        length
    }
}

/// What a range of bytes has in one block or sector.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Where it begins in the range.
    pub at: usize,
    pub length: usize,
    /// Number of the block or sector.
    unit: usize,
    /// Where it begins in the block or sector.
    inside: usize,
}

/// Cuts the `length` bytes at `offset` at the multiples of `size`.
pub fn parts(offset: u64, length: usize, size: usize) -> impl Iterator<Item = Part> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let place = offset as usize + at;
        let inside = place % size;
        let part = Part {
            at,
            length: (size - inside).min(length - at),
            unit: place / size,
            inside,
        };
        at += part.length;
        (part.length > 0).then_some(part)
    })
}
