//! Exact decimal numbers, small ones without an allocation.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, RoundingMode, ToPrimitive, Zero};

/// The largest exponent, either way, that a number may be written with. PostgreSQL's `numeric` keeps
/// at most 16,383 digits after the point; a bound also keeps `1e999999999` from filling memory.
pub const EXPONENT_MAX: i64 = 16_383;
/// The most digits before the point, as PostgreSQL's `numeric` keeps them.
const INTEGER_DIGITS_MAX: u64 = 131_072;

/// An exact decimal number with its scale: `1.20` prints as `1.20` and equals `1.2`.
#[derive(Clone)]
pub struct Decimal(Repr);

#[derive(Clone)]
enum Repr {
    /// `coefficient / 10^scale`; the form of nearly every amount and price.
    Small {
        coefficient: i64,
        scale: u8,
    },
    Big(Box<BigDecimal>),
}

/// Why a text is not a decimal, or an operation has no decimal result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is not a number.
    #[error("not a number")]
    Syntax,
    /// More digits than are kept.
    #[error("number out of range")]
    Range,
    /// Division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
}

const SCALE_SMALL_MAX: u8 = 18;

fn pow10(n: u32) -> Option<i128> {
    10i128.checked_pow(n)
}

impl Decimal {
    /// Zero.
    pub const ZERO: Decimal = Decimal(Repr::Small { coefficient: 0, scale: 0 });

    /// `coefficient / 10^scale`.
    #[must_use]
    pub fn new(coefficient: i128, scale: u8) -> Self {
        match i64::try_from(coefficient) {
            Ok(coefficient) if scale <= SCALE_SMALL_MAX => {
                Decimal(Repr::Small { coefficient, scale })
            }
            _ => Decimal(Repr::Big(Box::new(BigDecimal::new(
                BigInt::from(coefficient),
                i64::from(scale),
            )))),
        }
    }

    /// A big-endian two's complement number of any length over `10^scale`; none where it has more digits than are
    /// kept.
    #[must_use]
    pub fn from_unscaled(bytes: &[u8], scale: i64) -> Option<Self> {
        // A byte has at most 2.41 digits.
        if bytes.is_empty() || bytes.len() > 55_000 || scale.abs() > EXPONENT_MAX {
            return None;
        }
        if let (true, Ok(small)) = (bytes.len() <= 8, u8::try_from(scale))
            && small <= SCALE_SMALL_MAX
        {
            let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
            let coefficient = bytes.iter().fold(sign, |all: i64, byte| all << 8 | i64::from(*byte));
            return Some(Decimal(Repr::Small { coefficient, scale: small }));
        }
        Decimal::from_unscaled_big(bytes, scale)
    }

    /// Its digits over `10^scale`, rounded, as a big-endian two's complement number in as few bytes as it takes.
    #[must_use]
    pub fn to_unscaled(&self, scale: u16) -> Vec<u8> {
        self.round(scale)
            .big()
            .with_scale(i64::from(scale))
            .as_bigint_and_scale()
            .0
            .to_signed_bytes_be()
    }

    fn from_unscaled_big(bytes: &[u8], scale: i64) -> Option<Self> {
        let number = Decimal::from_big(BigDecimal::new(BigInt::from_signed_bytes_be(bytes), scale));
        number.is_kept().then_some(number)
    }

    fn from_big(big: BigDecimal) -> Self {
        let (digits, scale) = big.as_bigint_and_exponent();
        if let (Some(coefficient), Ok(small)) = (digits.to_i64(), u8::try_from(scale))
            && small <= SCALE_SMALL_MAX
        {
            return Decimal(Repr::Small { coefficient, scale: small });
        }
        // A negative scale (12e3) is spelled out: every scale that leaves here is zero or more.
        let big = if scale < 0 { big.with_scale(0) } else { big };
        Decimal(Repr::Big(Box::new(big)))
    }

    fn big(&self) -> BigDecimal {
        match &self.0 {
            Repr::Small { coefficient, scale } => {
                BigDecimal::new(BigInt::from(*coefficient), i64::from(*scale))
            }
            Repr::Big(big) => (**big).clone(),
        }
    }

    /// Coefficient and scale, where both are small: nearly always.
    #[must_use]
    pub fn small(&self) -> Option<(i64, u8)> {
        match self.0 {
            Repr::Small { coefficient, scale } => Some((coefficient, scale)),
            Repr::Big(_) => None,
        }
    }

    /// Digits after the point.
    #[must_use]
    pub fn scale(&self) -> i64 {
        match &self.0 {
            Repr::Small { scale, .. } => i64::from(*scale),
            Repr::Big(big) => big.fractional_digit_count(),
        }
    }

    /// Digits before the point, leading zeros not counted: what `numeric(p, s)` bounds by `p - s`.
    #[must_use]
    pub fn integer_digits(&self) -> u64 {
        match &self.0 {
            Repr::Small { coefficient, scale } => {
                // A small scale is at most 18, and 10^18 fits.
                let whole = coefficient.unsigned_abs() / 10u64.pow(u32::from(*scale));
                if whole == 0 { 0 } else { u64::from(whole.ilog10()) + 1 }
            }
            Repr::Big(big) => {
                if big.is_zero() {
                    return 0;
                }
                let digits = i64::try_from(big.digits()).unwrap_or(i64::MAX);
                u64::try_from(digits - big.fractional_digit_count()).unwrap_or(0)
            }
        }
    }

    /// Rounded to `scale` digits after the point, ties away from zero as PostgreSQL's `numeric` does;
    /// a number with fewer is filled up with zeros.
    #[must_use]
    pub fn round(&self, scale: u16) -> Self {
        if let Repr::Small { coefficient, scale: from } = self.0
            && let Ok(to) = u8::try_from(scale)
            && to <= SCALE_SMALL_MAX
        {
            if to == from {
                return self.clone();
            }
            let coefficient = i128::from(coefficient);
            if to >= from {
                if let Some(factor) = pow10(u32::from(to - from))
                    && let Some(wide) = coefficient.checked_mul(factor)
                {
                    return Decimal::new(wide, to);
                }
            } else if let Some(factor) = pow10(u32::from(from - to)) {
                let half = factor / 2 * coefficient.signum();
                return Decimal::new((coefficient + half) / factor, to);
            }
        }
        Decimal::from_big(self.big().with_scale_round(i64::from(scale), RoundingMode::HalfUp))
    }

    /// Without trailing zeros after the point.
    #[must_use]
    pub fn normalized(&self) -> Self {
        match self.0 {
            Repr::Small { mut coefficient, mut scale } => {
                while scale > 0 && coefficient % 10 == 0 {
                    coefficient /= 10;
                    scale -= 1;
                }
                Decimal(Repr::Small { coefficient, scale })
            }
            Repr::Big(ref big) => Decimal::from_big(big.normalized()),
        }
    }

    /// The number as an integer, if it has no fraction and fits.
    #[must_use]
    pub fn to_i64(&self) -> Option<i64> {
        match self.normalized().0 {
            Repr::Small { coefficient, scale: 0 } => Some(coefficient),
            Repr::Small { .. } => None,
            Repr::Big(big) => {
                if big.is_integer() {
                    big.to_i64()
                } else {
                    None
                }
            }
        }
    }

    /// The integer part, toward zero, if it fits.
    #[must_use]
    pub fn trunc_i64(&self) -> Option<i64> {
        match &self.0 {
            Repr::Small { coefficient, scale } => {
                let factor = pow10(u32::from(*scale))?;
                i64::try_from(i128::from(*coefficient) / factor).ok()
            }
            Repr::Big(big) => big.with_scale_round(0, RoundingMode::Down).to_i64(),
        }
    }

    /// The nearest double.
    #[must_use]
    pub fn to_f64(&self) -> f64 {
        match &self.0 {
            Repr::Small { coefficient, scale: 0 } => *coefficient as f64,
            Repr::Small { .. } | Repr::Big(_) => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }

    /// The shortest decimal that reads back as this double; none for NaN and the infinities.
    #[must_use]
    pub fn from_f64(double: f64) -> Option<Self> {
        if !double.is_finite() {
            return None;
        }
        format!("{double}").parse().ok()
    }

    fn aligned(&self, other: &Self) -> Option<(i128, i128, u8)> {
        let (Repr::Small { coefficient: a, scale: x }, Repr::Small { coefficient: b, scale: y }) =
            (&self.0, &other.0)
        else {
            return None;
        };
        // At most 19 digits times 10^18 stays below i128's 38 digits.
        let scale = *x.max(y);
        let a = i128::from(*a).checked_mul(pow10(u32::from(scale - x))?)?;
        let b = i128::from(*b).checked_mul(pow10(u32::from(scale - y))?)?;
        Some((a, b, scale))
    }

    /// The exact sum.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        match self.aligned(other) {
            Some((a, b, scale)) => Decimal::new(a + b, scale),
            None => Decimal::from_big(self.big() + other.big()),
        }
    }

    /// The exact difference.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        match self.aligned(other) {
            Some((a, b, scale)) => Decimal::new(a - b, scale),
            None => Decimal::from_big(self.big() - other.big()),
        }
    }

    /// The exact product.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        if let (
            Repr::Small { coefficient: a, scale: x },
            Repr::Small { coefficient: b, scale: y },
        ) = (&self.0, &other.0)
        {
            return Decimal::new(i128::from(*a) * i128::from(*b), x + y);
        }
        Decimal::from_big(self.big() * other.big())
    }

    /// The quotient, rounded to at least 16 significant digits and to no fewer digits after the point
    /// than either side has, which is PostgreSQL's rule for `numeric`.
    ///
    /// # Errors
    /// Division by zero.
    pub fn divided_by(&self, other: &Self) -> Result<Self, DecimalError> {
        if other.is_zero() {
            return Err(DecimalError::DivisionByZero);
        }
        let weight = |d: &Self| i64::try_from(d.integer_digits()).unwrap_or(i64::MAX);
        let quotient_digits = (weight(self) - weight(other)).max(0);
        let scale = (16 - quotient_digits).max(self.scale()).max(other.scale()).clamp(0, 1_000);
        let exact = (self.big() / other.big()).with_scale_round(scale, RoundingMode::HalfUp);
        Ok(Decimal::from_big(exact))
    }

    /// The remainder, with the sign of the dividend.
    ///
    /// # Errors
    /// Division by zero.
    pub fn remainder(&self, other: &Self) -> Result<Self, DecimalError> {
        if other.is_zero() {
            return Err(DecimalError::DivisionByZero);
        }
        match self.aligned(other) {
            Some((a, b, scale)) => Ok(Decimal::new(a % b, scale)),
            None => Ok(Decimal::from_big(self.big() % other.big())),
        }
    }

    /// The number with its sign turned.
    #[must_use]
    pub fn negated(&self) -> Self {
        match &self.0 {
            Repr::Small { coefficient, scale } => Decimal::new(-i128::from(*coefficient), *scale),
            Repr::Big(big) => Decimal::from_big(-(**big).clone()),
        }
    }

    /// Whether this is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match &self.0 {
            Repr::Small { coefficient, .. } => *coefficient == 0,
            Repr::Big(big) => big.is_zero(),
        }
    }

    /// Whether this is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        match &self.0 {
            Repr::Small { coefficient, .. } => *coefficient < 0,
            Repr::Big(big) => big.sign() == bigdecimal::num_bigint::Sign::Minus,
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Small { .. } => 0,
            Repr::Big(_) => self.long_bytes().unwrap_or(0),
        }
    }

    /// Bytes on the heap of a number too long to be kept in place; none of the others. Zeros that its scale stands for
    /// count, since sums and texts spell them out.
    #[must_use]
    pub fn long_bytes(&self) -> Option<usize> {
        let Repr::Big(big) = &self.0 else { return None };
        let (digits, scale) = big.as_bigint_and_scale();
        let bits = usize::try_from(digits.bits()).unwrap_or(usize::MAX);
        // Some 2.4 decimal digits fit a byte.
        let zeros = usize::try_from(scale.unsigned_abs()).unwrap_or(usize::MAX) / 2;
        Some(48 + (bits / 8).max(zeros))
    }

    /// Whether stores keep it: PostgreSQL's `numeric` has at most 131,072 digits before the point and 16,383 after.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        match &self.0 {
            Repr::Small { .. } => true,
            Repr::Big(big) => {
                big.fractional_digit_count() <= EXPONENT_MAX
                    && self.integer_digits() <= INTEGER_DIGITS_MAX
            }
        }
    }
}

impl From<i64> for Decimal {
    fn from(coefficient: i64) -> Self {
        Decimal(Repr::Small { coefficient, scale: 0 })
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    /// Reads `-12.50`, `12`, `.5`, `1.2e3` as JSON and PostgreSQL write numbers.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let bytes = text.as_bytes();
        let (mantissa, exponent) = match bytes.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => {
                let digits = text.get(at + 1..).ok_or(DecimalError::Syntax)?;
                let bare = digits.trim_start_matches(['+', '-']);
                if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(DecimalError::Syntax);
                }
                let exponent: i64 = digits.parse().map_err(|_| DecimalError::Range)?;
                (text.get(..at).ok_or(DecimalError::Syntax)?, exponent)
            }
            None => (text, 0),
        };
        if exponent.abs() > EXPONENT_MAX || mantissa.len() > 150_000 {
            return Err(DecimalError::Range);
        }
        let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let digits_only = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty())
            || !digits_only(whole)
            || !digits_only(fraction)
        {
            return Err(DecimalError::Syntax);
        }
        let negative = mantissa.starts_with('-');
        if whole.len() + fraction.len() <= 18 && exponent == 0 {
            let mut coefficient = 0i64;
            for digit in whole.bytes().chain(fraction.bytes()) {
                coefficient = coefficient * 10 + i64::from(digit - b'0');
            }
            let scale = u8::try_from(fraction.len()).map_err(|_| DecimalError::Range)?;
            let coefficient = if negative { -coefficient } else { coefficient };
            return Ok(Decimal(Repr::Small { coefficient, scale }));
        }
        let scale = i64::try_from(fraction.len()).map_err(|_| DecimalError::Range)? - exponent;
        if scale > EXPONENT_MAX {
            return Err(DecimalError::Range);
        }
        let digits: BigInt =
            format!("{whole}{fraction}").parse().map_err(|_| DecimalError::Syntax)?;
        let digits = if negative { -digits } else { digits };
        Ok(Decimal::from_big(BigDecimal::new(digits, scale)))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Small { coefficient, scale: 0 } => write!(f, "{coefficient}"),
            Repr::Small { coefficient, scale } => {
                let factor = 10u64.pow(u32::from(*scale));
                let digits = coefficient.unsigned_abs();
                let sign = if *coefficient < 0 { "-" } else { "" };
                let width = usize::from(*scale);
                write!(f, "{sign}{}.{:0width$}", digits / factor, digits % factor)
            }
            Repr::Big(big) => f.write_str(&big.to_plain_string()),
        }
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.aligned(other) {
            Some((a, b, _)) => a.cmp(&b),
            None => self.big().cmp(&other.big()),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl Hash for Decimal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.normalized().0 {
            Repr::Small { coefficient, scale } => (coefficient, scale).hash(state),
            Repr::Big(big) => big.hash(state),
        }
    }
}

#[cfg(test)]
mod tests;
