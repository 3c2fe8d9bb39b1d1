//! Numbers in as few bytes as they need: LEB128, and zigzag for those with a sign.

/// A 64-bit number takes at most this many bytes.
const LONGEST: usize = 10;

pub(super) fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "less than 0x80")]
    bytes.push(number as u8);
}

/// The number at the start of `bytes` and how many of them it takes, if it is written in the one
/// shortest way.
pub(super) fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (at, byte) in bytes.iter().copied().take(LONGEST).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * at;
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || at == 0;
            return shortest.then_some((number, at + 1));
        }
    }
    None
}

/// Small numbers of either sign as small numbers: 0, -1, 1, -2, 2 …
pub(super) const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

pub(super) const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_read_back(number: u64, shift in 0..64_u32, rest: Vec<u8>) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            let len = bytes.len();
            prop_assert_eq!(len, (64 - number.leading_zeros() as usize).div_ceil(7).max(1));
            for cut in 0..len {
                prop_assert_eq!(get(&bytes[..cut]), None);
            }
            bytes.extend(rest);
            prop_assert_eq!(get(&bytes), Some((number, len)));
        }

        #[test]
        fn a_sign_is_read_back(number: i64, shift in 0..64_u32) {
            let number = number >> shift;
            prop_assert_eq!(unzigzag(zigzag(number)), number);
            prop_assert_eq!(zigzag(number) >> 1, number.unsigned_abs() - u64::from(number < 0));
        }
    }

    #[test]
    fn a_number_has_one_spelling_and_64_bits() {
        assert_eq!(get(&[0x80, 0]), None);
        assert_eq!(get(&[0xff, 0x80, 0]), None);
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(get(&most), Some((u64::MAX, 10)));
        most[9] = 2;
        assert_eq!(get(&most), None);
        assert_eq!(get(&[0xff; 11]), None);
    }
}
