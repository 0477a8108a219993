//! Arithmetic modulo the prime `2^29 - 3`.

/// Bits of a residue.
pub const BITS: u32 = 29;
/// The modulus, the largest prime below `2^29`.
pub const P: u32 = (1 << BITS) - 3;

const MASK: u64 = (1 << BITS) - 1;

/// `a + b` of two residues.
pub fn add(a: u32, b: u32) -> u32 {
    let sum = a + b;
    // Below the modulus the subtraction wraps to something larger: a comparison without a branch.
    sum.min(sum.wrapping_sub(P))
}

/// `a - b` of two residues.
pub fn sub(a: u32, b: u32) -> u32 {
    let difference = a.wrapping_sub(b);
    difference.min(difference.wrapping_add(P))
}

/// `a * b` of two residues.
pub fn mul(a: u32, b: u32) -> u32 {
    // 2^29 is 3, so the upper half counts three times.
    let fold = |value: u64| (value & MASK) + 3 * (value >> BITS);
    let reduced = fold(fold(u64::from(a) * u64::from(b))) as u32;
    reduced.min(reduced.wrapping_sub(P))
}

/// The inverse of a residue other than 0, for which it is 0.
pub fn inverse(value: u32) -> u32 {
    // Fermat: value^(P - 2).
    let (mut power, mut result, mut exponent) = (value, 1, P - 2);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = mul(result, power);
        }
        power = mul(power, power);
        exponent >>= 1;
    }
    result
}

/// Replaces residues, none of them 0, by their inverses: three products each and one inversion for
/// all (Montgomery, 1987). `scratch` is memory that is used again.
pub fn invert_all(values: &mut [u32], scratch: &mut Vec<u32>) {
    scratch.clear();
    let mut product = 1;
    for value in values.iter() {
        scratch.push(product);
        product = mul(product, *value);
    }
    let mut rest = inverse(product);
    for (value, before) in values.iter_mut().zip(scratch.iter()).rev() {
        let inverted = mul(rest, *before);
        rest = mul(rest, *value);
        *value = inverted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_prime(number: u32) -> bool {
        (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
    }

    #[test]
    fn the_modulus_is_a_prime() {
        assert!(is_prime(P) && !is_prime(P + 2));
    }

    proptest! {
        #[test]
        fn it_is_arithmetic_modulo_p(a in 0..P, b in 0..P) {
            let (wide_a, wide_b) = (u64::from(a), u64::from(b));
            let p = u64::from(P);
            prop_assert_eq!(u64::from(add(a, b)), (wide_a + wide_b) % p);
            prop_assert_eq!(u64::from(sub(a, b)), (wide_a + p - wide_b) % p);
            prop_assert_eq!(u64::from(mul(a, b)), wide_a * wide_b % p);
        }

        #[test]
        fn inverses_one_by_one_and_together(values in prop::collection::vec(1..P, 0..50)) {
            let mut inverted = values.clone();
            invert_all(&mut inverted, &mut Vec::new());
            for (value, inverse_of) in values.iter().zip(&inverted) {
                prop_assert_eq!(mul(*value, *inverse_of), 1);
                prop_assert_eq!(inverse(*value), *inverse_of);
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_right() {
        for (a, b) in [(0, 0), (0, P - 1), (P - 1, P - 1), (1, P - 1)] {
            let p = u64::from(P);
            assert_eq!(u64::from(mul(a, b)), u64::from(a) * u64::from(b) % p);
            assert_eq!(sub(add(a, b), b), a);
        }
        assert_eq!(inverse(1), 1);
    }
}
