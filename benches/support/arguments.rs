//! What benchmarks are told on the command line.

/// The first number among the arguments, most often how many states; `or` without one. Cargo adds
/// arguments of its own, which are none.
pub fn first_number(or: u64) -> u64 {
    let numbers = std::env::args().skip(1);
    let mut numbers = numbers.filter_map(|text| text.parse().ok());
    numbers.next().unwrap_or(or)
}
