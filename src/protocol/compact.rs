//! Numbers that an entry holds in a few bytes: a mantissa and five bits of exponent.
//!
//! They are byte arrays, so they need no alignment and no padding. This saves 18 bytes an entry,
//! which counts at millions of entries.

const EXPONENT_BITS: u32 = 5;
const EXPONENT_MAX: u32 = (1 << EXPONENT_BITS) - 1;

/// Packs a number, rounded down, into `bits` of mantissa and an exponent. A number that does not
/// fit becomes the largest one that does.
fn pack(number: u64, bits: u32) -> u32 {
    let exponent = exponent(number, bits);
    match exponent <= EXPONENT_MAX {
        true => ((number >> exponent) as u32) << EXPONENT_BITS | exponent,
        false => largest(bits),
    }
}

/// The number of low bits of a number that do not fit into `bits`.
fn exponent(number: u64, bits: u32) -> u32 {
    (u64::BITS - number.leading_zeros()).saturating_sub(bits)
}

const fn largest(bits: u32) -> u32 {
    EXPONENT_MAX << bits | ((1 << bits) - 1)
}

/// The exponent is in the lowest bits. To mask the mantissa in the upper ones would take the bytes
/// apart.
fn unpack(packed: u32, exponent_bits: u32) -> u64 {
    u64::from(packed >> exponent_bits) << (packed & ((1 << exponent_bits) - 1))
}

/// A time limit in ticks, rounded down by at most 1.5e-8 of itself: never longer than requested.
///
/// The longest is nine years. Every longer limit is unlimited.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span([u8; 4]);

impl Span {
    const BITS: u32 = 27;

    pub const ZERO: Span = Span([0; 4]);

    /// The longest span that is not unlimited.
    pub const LONGEST: u64 = ((1 << Self::BITS) - 2) << EXPONENT_MAX;

    pub fn new(ticks: u64) -> Self {
        Span(pack(ticks, Self::BITS).to_ne_bytes())
    }

    #[inline(always)]
    pub fn of_bytes(bytes: [u8; 4]) -> Self {
        Span(bytes)
    }

    #[inline(always)]
    pub fn bytes(self) -> [u8; 4] {
        self.0
    }

    /// [`ticks`](Self::ticks) of a span that is not unlimited.
    #[inline(always)]
    pub fn limited_ticks(self) -> u64 {
        unpack(u32::from_ne_bytes(self.0), EXPONENT_BITS)
    }

    #[inline]
    pub fn ticks(self) -> u64 {
        match u32::from_ne_bytes(self.0) {
            forever if forever == largest(Self::BITS) => u64::MAX,
            packed => unpack(packed, EXPONENT_BITS),
        }
    }
}

/// A time limit in ticks in two or three bytes, for an entry that needs the room: rounded down, in
/// three bytes by at most 8e-6 of itself, in two by at most 0.2 %.
///
/// `u64::MAX` is unlimited, and every other number is not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RoughSpan<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> RoughSpan<BYTES> {
    /// They reach every number, so none is capped.
    const EXPONENT_BITS: u32 = 6;
    const BITS: u32 = 8 * BYTES as u32 - Self::EXPONENT_BITS;

    /// No number has this form, because no exponent is so large.
    const UNLIMITED: u32 = (1 << (8 * BYTES)) - 1;

    pub fn new(ticks: u64) -> Self {
        let exponent = exponent(ticks, Self::BITS);
        let packed = match ticks {
            u64::MAX => Self::UNLIMITED,
            _ => ((ticks >> exponent) as u32) << Self::EXPONENT_BITS | exponent,
        };
        let bytes = packed.to_le_bytes();
        RoughSpan(std::array::from_fn(|at| bytes[at]))
    }

    pub fn of_bytes(bytes: [u8; BYTES]) -> Self {
        RoughSpan(bytes)
    }

    pub fn bytes(self) -> [u8; BYTES] {
        self.0
    }

    pub fn ticks(self) -> u64 {
        let mut bytes = [0; 4];
        bytes[..BYTES].copy_from_slice(&self.0);
        match u32::from_le_bytes(bytes) {
            packed if packed == Self::UNLIMITED => u64::MAX,
            packed => unpack(packed, Self::EXPONENT_BITS),
        }
    }
}

/// A measured duration in ticks: rounded down by at most 0.1 %, at most 73 minutes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cost([u8; 2]);

impl Cost {
    const BITS: u32 = 11;

    pub const ZERO: Cost = Cost([0; 2]);

    pub fn new(ticks: u64) -> Self {
        Cost((pack(ticks, Self::BITS) as u16).to_ne_bytes())
    }

    pub fn ticks(self) -> u64 {
        unpack(u16::from_ne_bytes(self.0).into(), EXPONENT_BITS)
    }
}

/// The weight of a value: exact up to half a million, above that rounded up by at most 4e-6 of
/// itself.
///
/// Never rounded down, because many values that were each slightly heavier than their weight would
/// together exceed the limit. If the limit is a number that is not rounded itself, a weight within
/// the limit is still within the limit after rounding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Weight([u8; 3]);

impl Weight {
    const BITS: u32 = 19;

    pub const ZERO: Weight = Weight([0; 3]);

    pub fn new(weight: u32) -> Self {
        let weight = u64::from(weight);
        // A multiple of the part that is cut off is not rounded.
        let unit = 1 << exponent(weight, Self::BITS);
        let [a, b, c, _] = pack(weight.next_multiple_of(unit), Self::BITS).to_le_bytes();
        Weight([a, b, c])
    }

    pub fn get(self) -> u64 {
        let [a, b, c] = self.0;
        unpack(u32::from_le_bytes([a, b, c, 0]), EXPONENT_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cost, RoughSpan, Span, Weight};

    /// Numbers of every size below `end`.
    fn numbers(end: u64) -> impl Iterator<Item = u64> {
        let sizes = std::iter::successors(Some(1u64), |size| size.checked_mul(2));
        sizes
            .take_while(move |size| *size < end)
            .flat_map(|size| [size - 1, size, size + size / 3, size + (size - 1)])
    }

    /// Compares numbers of every size with their packed form.
    fn check(back: impl Fn(u64) -> u64, end: u64, error: f64) {
        for exact in numbers(end) {
            let got = back(exact);
            let lost = exact - got;
            assert!(lost as f64 <= exact as f64 * error, "{exact}: {got}");
        }
    }

    #[test]
    fn weights_come_back_never_smaller_and_hardly_larger() {
        for exact in numbers(1 << 32) {
            let got = Weight::new(exact as u32).get();
            let more = got - exact;
            assert!(more as f64 <= exact as f64 * 4e-6, "{exact}: {got}");
            assert!(more == 0 || exact > 1 << 19, "{exact}: {got}");
            // A number that was rounded once is not rounded again, and is an upper bound of all
            // smaller weights.
            if let Ok(limit) = u32::try_from(got) {
                assert_eq!(Weight::new(limit).get(), got);
                assert!(Weight::new(limit - u32::from(limit > 0)).get() <= got);
            }
        }
        assert_eq!(Weight::new(500_000).get(), 500_000);
        assert_eq!(Weight::new(1_000_001).get(), 1_000_002);
        assert_eq!(Weight::new(u32::MAX).get(), 1 << 32);
    }

    #[test]
    fn times_come_back_never_longer_and_hardly_shorter() {
        check(|n| Span::new(n).ticks(), 1 << 57, 1.5e-8);
        check(|n| Cost::new(n).ticks(), 1 << 41, 1e-3);
        check(|n| RoughSpan::<3>::new(n).ticks(), 1 << 63, 8e-6);
        check(|n| RoughSpan::<2>::new(n).ticks(), 1 << 63, 2e-3);
        assert_eq!(Span::new(120_000_000_000).ticks(), 120_000_000_000);
    }

    #[test]
    fn the_longest_are_for_ever_or_capped() {
        assert_eq!(Span::new(u64::MAX).ticks(), u64::MAX);
        assert_eq!(RoughSpan::<3>::new(u64::MAX).ticks(), u64::MAX);
        assert_eq!(RoughSpan::<2>::new(u64::MAX).ticks(), u64::MAX);
        assert!(RoughSpan::<2>::new(u64::MAX - 1).ticks() < u64::MAX);
        assert_eq!(Span::new(Span::LONGEST).ticks(), Span::LONGEST);
        assert!(Cost::new(u64::MAX).ticks() > 4_000_000_000_000);
    }
}
