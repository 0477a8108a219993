//! Pages on their way to a file, in order of place.

use std::collections::BTreeMap;
use std::io;

use crate::store::disk::DiskFile;

/// Bytes that wait at most.
const WAITING_MAX: usize = 64 << 20;
/// Bytes that one write takes at most, unless a page is longer.
const RUN: usize = 256 << 10;

/// Pages that are to be written, by their places. No two of them overlap.
#[derive(Debug, Default)]
pub struct PageQueue {
    pages: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
}

impl PageQueue {
    /// True when more than enough waits.
    pub fn is_full(&self) -> bool {
        self.bytes >= WAITING_MAX
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// True when a page that waits has bytes in a stretch of the file.
    pub fn overlaps(&self, offset: u64, length: usize) -> bool {
        let end = offset.saturating_add(length as u64);
        let last = self.pages.range(..end).next_back();
        last.is_some_and(|(at, page)| at.saturating_add(page.len() as u64) > offset)
    }

    /// Adds a page, in place of the one that waits for just its place. False, and nothing is added, when
    /// it overlaps others.
    pub fn push(&mut self, offset: u64, page: &[u8]) -> bool {
        if let Some(waiting) = self.pages.get_mut(&offset)
            && waiting.len() == page.len()
        {
            waiting.copy_from_slice(page);
            return true;
        }
        if self.overlaps(offset, page.len()) {
            return false;
        }
        self.bytes += page.len();
        self.pages.insert(offset, page.to_vec());
        true
    }

    /// Writes the first pages, about as many bytes as said or all there are, neighbours at once.
    ///
    /// # Errors
    /// The disk's. The pages that were to be written wait no more, whether they were or not.
    pub fn write(&mut self, file: &dyn DiskFile, bytes: usize) -> io::Result<()> {
        let (mut start, mut run, mut written) = (0, Vec::new(), 0);
        while written < bytes
            && let Some((offset, page)) = self.pages.pop_first()
        {
            written += page.len();
            self.bytes -= page.len();
            let follows = start + run.len() as u64 == offset && run.len() + page.len() <= RUN;
            if !follows {
                flush(file, start, &run)?;
                (start, run) = (offset, page);
            } else {
                run.extend_from_slice(&page);
            }
        }
        flush(file, start, &run)
    }
}

fn flush(file: &dyn DiskFile, start: u64, run: &[u8]) -> io::Result<()> {
    match run {
        [] => Ok(()),
        run => file.write_at(start, run),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// Where each write went, and how long it was.
    type Writes = Vec<(u64, usize)>;

    /// A file in memory that notes what is written at once.
    #[derive(Debug, Default)]
    struct Noted(Mutex<(Vec<u8>, Writes)>);

    impl DiskFile for Noted {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().0.len() as u64)
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            let bytes = &self.0.lock().unwrap().0;
            buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
            Ok(())
        }

        fn write_at(&self, offset: u64, page: &[u8]) -> io::Result<()> {
            let (bytes, writes) = &mut *self.0.lock().unwrap();
            let end = offset as usize + page.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].copy_from_slice(page);
            writes.push((offset, page.len()));
            Ok(())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn a_file_gets_what_was_pushed_last(
            pushes in proptest::collection::vec((0u64..24, 1usize..4, any::<u8>()), 1..60),
            step in 1usize..64,
        ) {
            let (file, model) = (Noted::default(), Noted::default());
            let mut queue = PageQueue::default();
            for (place, units, byte) in pushes {
                let (offset, page) = (place * 16, vec![byte; units * 16]);
                if !queue.push(offset, &page) {
                    prop_assert!(queue.overlaps(offset, page.len()));
                    queue.write(&file, usize::MAX).unwrap();
                    prop_assert!(queue.is_empty() && queue.push(offset, &page));
                }
                model.write_at(offset, &page).unwrap();
            }
            while !queue.is_empty() {
                queue.write(&file, step).unwrap();
            }
            prop_assert_eq!(queue.bytes, 0);
            prop_assert_eq!(&file.0.lock().unwrap().0, &model.0.lock().unwrap().0);
        }
    }

    #[test]
    fn neighbours_are_written_at_once_and_in_order() {
        let (file, mut queue) = (Noted::default(), PageQueue::default());
        for place in [7u64, 2, 3, 9, 1] {
            assert!(queue.push(place * 4096, &[place as u8; 4096]));
        }
        queue.write(&file, usize::MAX).unwrap();
        let expected = [(4096, 3 * 4096), (7 * 4096, 4096), (9 * 4096, 4096)];
        assert_eq!(file.0.lock().unwrap().1, expected);
    }

    #[test]
    fn a_queue_that_is_full_says_so_and_its_writes_are_bounded() {
        let (file, mut queue) = (Noted::default(), PageQueue::default());
        let page = vec![1; 64 << 10];
        for place in 0..(WAITING_MAX / page.len()) as u64 {
            assert!(!queue.is_full());
            assert!(queue.push(place * page.len() as u64, &page));
        }
        assert!(queue.is_full());
        queue.write(&file, 1 << 20).unwrap();
        let writes = &file.0.lock().unwrap().1;
        assert_eq!(writes.len(), (1 << 20) / RUN);
        assert!(writes.iter().all(|(_, length)| *length == RUN));
    }
}
