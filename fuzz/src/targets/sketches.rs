//! Cells of sketches, and the bytes below the messages of strategies.

use samestate::bloom::BloomFilter;
use samestate::reconcile::encoding::{Reader, Writer};
use samestate::reconcile::sketch_messages::{
    read_answer, read_more, read_question, write_answer, write_question,
};
use samestate::sketch::cell::{CELL_BITS, Cell, from_bytes, subtract_all, to_bytes};
use samestate::sketch::decoder::{Decoder, Partition, tests_max};
use samestate::sketch::key::{Secret, SketchKey};
use samestate::sketch::table::{Change, apply_to_fold};

/// Cells that are solved here at most.
const CELLS: usize = 2048;

/// Cells of any content: solving them ends within its bounds, and what is found adds up to them.
pub fn cells(input: &[u8]) {
    let count = input.len() * 8 / CELL_BITS;
    let Some(mut cells) = from_bytes(input, count).filter(|_| count <= CELLS) else {
        return;
    };
    let key = SketchKey::new(&Secret::default());
    let whole = cells.clone();
    let mut decoder = Decoder::new(&key);
    let decoded = decoder.decode(Partition::WHOLE, &mut cells);
    assert!(decoder.effort().tests <= tests_max(count));
    if let Ok(Some(found)) = decoded {
        let mut again = vec![Cell::default(); count];
        for one in found {
            let change = Change {
                place: one.place,
                amount: one.amount,
                steps: [0, 0],
            };
            apply_to_fold(&mut again, &key, &change, (0, &[0], &(0..count)));
        }
        subtract_all(&mut again, &whole);
        assert!(again.iter().all(Cell::is_empty));
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
    for partitions in [1, 3] {
        if let Ok(cells) = read_more(input, partitions, CELLS) {
            assert!(cells.len() <= partitions * CELLS);
            assert_eq!(to_bytes(&cells), input);
        }
    }
    if let Ok(filter) = BloomFilter::from_bytes(input, [7; 16]) {
        assert_eq!(filter.to_bytes(), input);
    }
}
