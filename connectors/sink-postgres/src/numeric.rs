//! `numeric` in PostgreSQL's binary format: groups of four decimal digits, the weight of the first, a
//! sign and how many digits stand after the point.

use bytes::{BufMut, BytesMut};
use foldline_api::decimal::Decimal;

use crate::codec::CodecError;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
/// Up to here a coefficient is computed; beyond, the digits go through text.
const GROUPS_FAST: usize = 7;

fn error(reason: &str) -> CodecError {
    CodecError(reason.to_owned())
}

/// Appends `decimal`.
pub(crate) fn encode(decimal: &Decimal, out: &mut BytesMut) -> Result<(), CodecError> {
    match decimal.small() {
        Some((coefficient, scale)) => {
            encode_small(coefficient, scale, out);
            Ok(())
        }
        None => encode_digits(decimal, out),
    }
}

/// A number that is computed with: no text in between.
fn encode_small(coefficient: i64, scale: u8, out: &mut BytesMut) {
    // The fraction is filled up to whole groups: 22 digits at most, six groups.
    let fill = (4 - scale % 4) % 4;
    let mut rest = u128::from(coefficient.unsigned_abs()) * 10u128.pow(u32::from(fill));
    let mut groups = [0i16; 6];
    let mut count = 0;
    for group in &mut groups {
        if rest == 0 {
            break;
        }
        // Mostly it fits into a register.
        let (next, last) = match u64::try_from(rest) {
            Ok(small) => (u128::from(small / 10_000), small % 10_000),
            Err(_) => (rest / 10_000, u64::try_from(rest % 10_000).unwrap_or(0)),
        };
        *group = i16::try_from(last).unwrap_or(0);
        rest = next;
        count += 1;
    }
    let weight = count - i16::from((scale + fill) / 4) - 1;
    let filled = groups.get(..usize::try_from(count).unwrap_or(0)).unwrap_or_default();
    let zeros = filled.iter().take_while(|group| **group == 0).count();
    let used = filled.get(zeros..).unwrap_or_default();
    out.put_u16(u16::try_from(used.len()).unwrap_or(0));
    out.put_i16(if used.is_empty() { 0 } else { weight });
    out.put_u16(if coefficient < 0 { NEGATIVE } else { POSITIVE });
    out.put_u16(u16::from(scale));
    for group in used.iter().rev() {
        out.put_i16(*group);
    }
}

fn encode_digits(decimal: &Decimal, out: &mut BytesMut) -> Result<(), CodecError> {
    let text = decimal.to_string();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (NEGATIVE, digits),
        None => (POSITIVE, text.as_str()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0').as_bytes();
    let fraction = fraction.as_bytes();
    let lead = whole.len().div_ceil(4);
    let mut groups: Vec<i16> = Vec::with_capacity(lead + fraction.len().div_ceil(4));
    // Right-aligned before the point, left-aligned after it.
    let (head, tail) = whole.split_at(whole.len() - (lead.saturating_sub(1)) * 4);
    if lead > 0 {
        groups.push(group(head, 0));
        groups.extend(tail.chunks(4).map(|four| group(four, 0)));
    }
    groups.extend(fraction.chunks(4).map(|four| group(four, 4 - four.len())));
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    let used = groups.len() - groups.iter().rev().take_while(|group| **group == 0).count();
    let groups = groups.get(zeros..used.max(zeros)).unwrap_or_default();

    let too_long = |_| error("a number with too many digits");
    let count = u16::try_from(groups.len()).map_err(too_long)?;
    let weight = if groups.is_empty() {
        0
    } else {
        let (lead, zeros) = (i64::try_from(lead).unwrap_or(0), i64::try_from(zeros).unwrap_or(0));
        i16::try_from(lead - 1 - zeros).map_err(too_long)?
    };
    let scale = u16::try_from(fraction.len()).map_err(too_long)?;
    out.put_u16(count);
    out.put_i16(weight);
    out.put_u16(if groups.is_empty() { POSITIVE } else { sign });
    out.put_u16(scale);
    for group in groups {
        out.put_i16(*group);
    }
    Ok(())
}

fn group(digits: &[u8], pad: usize) -> i16 {
    let number = digits.iter().fold(0, |n: i16, d| n * 10 + i16::from(d.wrapping_sub(b'0')));
    (0..pad).fold(number, |n, _| n * 10)
}

/// Reads one.
pub(crate) fn decode(bytes: &[u8]) -> Result<Decimal, CodecError> {
    let (head, body) = bytes.split_first_chunk::<8>().ok_or_else(|| error("a number cut short"))?;
    let [n0, n1, w0, w1, s0, s1, d0, d1] = *head;
    let count = usize::from(u16::from_be_bytes([n0, n1]));
    let weight = i64::from(i16::from_be_bytes([w0, w1]));
    let scale = usize::from(u16::from_be_bytes([d0, d1]));
    let negative = match u16::from_be_bytes([s0, s1]) {
        POSITIVE => false,
        NEGATIVE => true,
        _ => return Err(error("NaN or an infinity")),
    };
    let (groups, []) = body.as_chunks::<2>() else { return Err(error("a number cut short")) };
    if groups.len() != count {
        return Err(error("a number cut short"));
    }
    let group = |at: usize| groups.get(at).map_or(0, |pair| u16::from_be_bytes(*pair));
    if let Some(small) = small(groups, weight, scale, negative) {
        return Ok(small);
    }
    let mut text = String::with_capacity(count * 4 + 8);
    if negative {
        text.push('-');
    }
    text.push('0');
    for at in 0..usize::try_from(weight + 1).unwrap_or(0) {
        text.push_str(&format!("{:04}", group(at)));
    }
    let mut fraction = String::with_capacity(scale + 4);
    let mut at = weight + 1;
    while fraction.len() < scale {
        let digits = usize::try_from(at).map_or(0, group);
        fraction.push_str(&format!("{digits:04}"));
        at += 1;
    }
    fraction.truncate(scale);
    if scale > 0 {
        text.push('.');
        text.push_str(&fraction);
    }
    text.parse().map_err(|_| error("a number out of range"))
}

fn small(groups: &[[u8; 2]], weight: i64, scale: usize, negative: bool) -> Option<Decimal> {
    if groups.len() > GROUPS_FAST {
        return None;
    }
    let coefficient =
        groups.iter().fold(0i128, |n, pair| n * 10_000 + i128::from(u16::from_be_bytes(*pair)));
    let digits_after = (i64::try_from(groups.len()).ok()? - 1 - weight) * 4;
    let shift = i64::try_from(scale).ok()? - digits_after;
    let power = 10i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
    let coefficient =
        if shift >= 0 { coefficient.checked_mul(power)? } else { coefficient / power };
    let signed = if negative { -coefficient } else { coefficient };
    Some(Decimal::new(signed, u8::try_from(scale).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(text: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(&text.parse().unwrap(), &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn numbers_are_what_postgresql_sends() {
        for (text, expect) in [
            ("0", vec![0u16, 0, 0, 0]),
            ("0.00", vec![0, 0, 0, 2]),
            ("1", vec![1, 0, 0, 0, 1]),
            ("-1.5", vec![2, 0, 0x4000, 1, 1, 5000]),
            ("10000", vec![1, 1, 0, 0, 1]),
            ("0.0001", vec![1, 0xFFFF, 0, 4, 1]),
            ("0.00001", vec![1, 0xFFFE, 0, 5, 1000]),
            ("12345.678", vec![3, 1, 0, 3, 1, 2345, 6780]),
        ] {
            let bytes: Vec<u8> = expect.iter().flat_map(|n| n.to_be_bytes()).collect();
            assert_eq!(wire(text), bytes, "{text}");
        }
    }

    #[test]
    fn numbers_of_any_size_come_back_with_their_digits() {
        for text in [
            "0",
            "0.000",
            "-0.05",
            "9223372036854775807",
            "-9223372036854775808",
            "100000000000000000000000000000000000000000",
            "0.000000000000000000000000000000000000000001",
            "123456789012345678901234567890.123456789012345678901234567890",
            &"9".repeat(5_000),
            &format!("0.{}1", "0".repeat(5_000)),
        ] {
            let back = decode(&wire(text)).unwrap();
            assert_eq!(back.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn computed_and_spelled_out_are_the_same(coefficient: i64, scale in 0u8..=18) {
            let decimal = Decimal::new(coefficient.into(), scale);
            let (mut computed, mut spelled) = (BytesMut::new(), BytesMut::new());
            encode_small(coefficient, scale, &mut computed);
            encode_digits(&decimal, &mut spelled).unwrap();
            prop_assert_eq!(computed, spelled);
        }

        #[test]
        fn any_number_comes_back(negative: bool, whole in "[1-9][0-9]{0,40}", frac in "[0-9]{0,40}") {
            let sign = if negative { "-" } else { "" };
            let point = if frac.is_empty() { "" } else { "." };
            let text = format!("{sign}{whole}{point}{frac}");
            prop_assert_eq!(decode(&wire(&text)).unwrap().to_string(), text);
        }
    }
}
