//! Cells of sketches, and the bytes below the messages of strategies.

use samestate::bloom::BloomFilter;
use samestate::reconcile::encoding::{Reader, Writer};
use samestate::reconcile::sketch_messages::{
    read_answer, read_more, read_question, write_answer, write_question,
};
use samestate::sketch::cell::{Cell, fitting, from_bytes, to_bytes, told_all};
use samestate::sketch::decoder::{Decoder, Partition, Theirs, tests_max};
use samestate::sketch::field::sub;
use samestate::sketch::key::{Secret, SketchKey};
use samestate::sketch::table::{Change, apply_to_fold};

/// Cells that are solved here at most.
const CELLS: usize = 2048;

/// Cells of any content: solving them ends within its bounds, and what is found adds up to them.
pub fn cells(input: &[u8]) {
    let range = 0..fitting(input.len(), 1, &(0..CELLS));
    let Some(told) = from_bytes(input, 1, &range) else {
        return;
    };
    let key = SketchKey::new(&Secret::default());
    for borrows in [0, 2] {
        let theirs = Theirs {
            cells: &told,
            borrows,
        };
        let mut ours = vec![Cell::default(); told.len()];
        let mut decoder = Decoder::new(&key);
        let decoded = decoder.decode(Partition::WHOLE, &mut ours, theirs);
        assert!(decoder.effort().tests <= tests_max(told.len()));
        let Ok(Some(found)) = decoded else {
            continue;
        };
        // All that they have differs from nothing.
        let mut again = vec![Cell::default(); told.len()];
        for one in found {
            let change = Change {
                place: one.place,
                amount: sub(0, one.amount),
                steps: [0, 0],
            };
            apply_to_fold(&mut again, &key, &change, (0, &[0], &range));
        }
        let again = told_all(&again, &range);
        let pairs = again.iter().zip(&told);
        assert!(pairs.clone().all(|(again, told)| again.sums == told.sums));
        assert!(borrows > 0 || again == told);
    }
}

/// Sorted numbers, filters, and messages about cells: what was read is written the same.
pub fn encodings(input: &[u8]) {
    if let Ok(numbers) = Reader::new(input).sorted(1 << 16) {
        let mut out = Writer::new();
        out.sorted(&numbers);
        assert_eq!(Reader::new(&out.finish()).sorted(1 << 16), Ok(numbers));
    }
    if let Ok(question) = read_question(input) {
        assert_eq!(read_question(&write_question(&question)), Ok(question));
    }
    if let Ok(told) = read_answer(input, 1000, 1 << 29) {
        assert_eq!(read_answer(&write_answer(&told), 1000, 1 << 29), Ok(told));
    }
    for (partitions, start) in [(1, 0), (3, 0), (2, 300)] {
        if let Ok(cells) = read_more(input, partitions, &(start..start + CELLS)) {
            assert!(cells.len() <= partitions * CELLS);
            let range = start..start + cells.len() / partitions;
            assert_eq!(to_bytes(&cells, &range), input);
        }
    }
    if let Ok(filter) = BloomFilter::from_bytes(input, [7; 16]) {
        assert_eq!(filter.to_bytes(), input);
    }
}
