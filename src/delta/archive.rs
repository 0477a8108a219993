//! Reads a pack of recorded game states: an index in text, and one zstd frame of all their bytes.
//!
//! Each line of the index is `series TAB name TAB offset TAB length`, in order of the bytes and
//! without gaps. Demonstrations and tests take real states from such packs.

use thiserror::Error;

use crate::delta::compress::decompress_exact;
use crate::delta::error::DeltaError;

/// Largest archive, unpacked, in bytes.
pub const ARCHIVE_MAX: usize = 64 << 20;

/// One recorded version of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The game that it was recorded from.
    pub series: String,
    /// Its name within the series; names of one series are in order of time.
    pub name: String,
    /// The state.
    pub bytes: Vec<u8>,
}

/// An index or a pack that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArchiveError {
    /// Not `series TAB name TAB offset TAB length` going on where the line before ended.
    #[error(
        "line {0} of the index is malformed or leaves a gap; make index and pack anew together"
    )]
    Index(usize),
    /// More than [`ARCHIVE_MAX`].
    #[error("the index describes more than {ARCHIVE_MAX} bytes; split the archive")]
    TooLarge,
    /// The pack is damaged or belongs to another index.
    #[error("the pack does not hold what the index says: {0}")]
    Pack(#[from] DeltaError),
}

/// Reads all entries, in the order of the index.
///
/// # Errors
/// [`ArchiveError`] when the index is malformed, or the pack is not exactly what it describes.
pub fn read(index: &str, pack: &[u8]) -> Result<Vec<Entry>, ArchiveError> {
    let mut total = 0;
    let mut lines = Vec::new();
    for (number, line) in index.lines().enumerate() {
        let (series, name, len) = read_line(line, total).ok_or(ArchiveError::Index(number + 1))?;
        total = match total.checked_add(len) {
            Some(total) if total <= ARCHIVE_MAX => total,
            _ => return Err(ArchiveError::TooLarge),
        };
        lines.push((series, name, len));
    }
    let content = decompress_exact(pack, total)?;
    let mut rest = content.as_slice();
    let mut entries = Vec::with_capacity(lines.len());
    for (series, name, len) in lines {
        let (bytes, behind) = rest.split_at_checked(len).ok_or(ArchiveError::TooLarge)?;
        rest = behind;
        entries.push(Entry {
            series: series.to_owned(),
            name: name.to_owned(),
            bytes: bytes.to_vec(),
        });
    }
    Ok(entries)
}

/// Series, name and length of a line, if its offset is the expected one.
fn read_line(line: &str, expected_offset: usize) -> Option<(&str, &str, usize)> {
    let mut fields = line.split('\t');
    let (series, name) = (fields.next()?, fields.next()?);
    let offset: usize = fields.next()?.parse().ok()?;
    let len = fields.next()?.parse().ok()?;
    (offset == expected_offset && fields.next().is_none()).then_some((series, name, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::compress::compress;

    const INDEX: &str = "a\tx@1\t0\t3\na\tx@2\t3\t4\nb\ty\t7\t0\n";

    #[test]
    fn entries_come_in_order_with_their_bytes() {
        let entries = read(INDEX, &compress(b"onetwo2", 3).unwrap()).unwrap();
        let seen: Vec<(&str, &str, &[u8])> = entries
            .iter()
            .map(|e| (e.series.as_str(), e.name.as_str(), e.bytes.as_slice()))
            .collect();
        let expected: [(&str, &str, &[u8]); 3] =
            [("a", "x@1", b"one"), ("a", "x@2", b"two2"), ("b", "y", b"")];
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_index_that_lies_is_refused() {
        let pack = compress(b"onetwo2", 3).unwrap();
        let cases = [
            ("a\tx\t0", ArchiveError::Index(1)),
            ("a\tx\t0\t3\t", ArchiveError::Index(1)),
            ("a\tx\t0\t3\na\ty\t4\t3", ArchiveError::Index(2)),
            ("a\tx\t0\t-3", ArchiveError::Index(1)),
            ("a\tx\t0\t67108865", ArchiveError::TooLarge),
            (
                "a\tx\t0\t6",
                ArchiveError::Pack(DeltaError::TooLarge { limit: 6 }),
            ),
            (
                "a\tx\t0\t8",
                ArchiveError::Pack(DeltaError::WrongLength {
                    expected: 8,
                    actual: 7,
                }),
            ),
        ];
        for (index, expected) in cases {
            assert_eq!(read(index, &pack), Err(expected), "{index:?}");
        }
        assert!(read(INDEX, &pack[1..]).is_err());
    }
}
