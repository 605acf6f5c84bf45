//! Mutations of a text, piece by piece: words, numbers, blanks, single symbols.

use crate::rng::Rng;

/// Texts are kept shorter than this many bytes, but for a few.
const BYTES_MAX: usize = 6_000;

/// Characters and numbers that break what was not thought of.
const ODD: &[&str] = &[
    "\0",
    "\t",
    "\r\n",
    "\u{2028}",
    "é",
    "\u{1f600}",
    "\u{202e}",
    "\u{feff}",
    "ẞ",
    "\\",
    "'",
    "\"",
    "'''",
    "`",
    "$",
    "${",
    "}",
    "0",
    "-0",
    "-0.0",
    "00",
    "1e400",
    "-1e-400",
    "1e999999999",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551616",
    "0x7fffffffffffffff",
    "4294967296",
    "2147483648",
    "65536",
    "1000000",
    "0.1",
    "1e16",
    "1e308",
    "5e-324",
    "nan",
    "inf",
    "9999-12-31T23:59:59.999999Z",
    "0000-00-00",
    "-4713-01-01",
    "2026-02-30",
    "24:00:00",
    "1979-05-27T07:32:00-25:00",
    "{}",
    "[]",
    "[[]]",
    "null",
    "''",
    "\"\"",
];

/// One to four changes of `base`; `donor` lends pieces.
#[must_use]
pub fn mutate(rng: &mut Rng, base: &str, donor: &str, dictionary: &[&str]) -> String {
    let mut pieces: Vec<String> = pieces(base).iter().map(|piece| (*piece).to_owned()).collect();
    let lent = self::pieces(donor);
    for _ in 0..=rng.below(4) {
        change(rng, &mut pieces, &lent, dictionary);
    }
    let mut text = pieces.concat();
    if text.len() > BYTES_MAX && !rng.chance(20) {
        let end = (0..=BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

fn change(rng: &mut Rng, pieces: &mut Vec<String>, lent: &[&str], dictionary: &[&str]) {
    let (start, end) = span(rng, pieces.len());
    match rng.below(10) {
        0 => drop(pieces.drain(start..end)),
        1 => {
            let copy = pieces[start..end].to_vec();
            pieces.splice(end..end, copy);
        }
        2 if pieces.len() > 1 => {
            let (a, b) = (at(rng, pieces.len()), at(rng, pieces.len()));
            pieces.swap(a, b);
        }
        3 | 4 => pieces.insert(start, word(rng, dictionary)),
        5 if start < pieces.len() => pieces[start] = word(rng, dictionary),
        6 | 7 => {
            let (from, to) = span(rng, lent.len());
            pieces.splice(start..end, lent[from..to].iter().map(|piece| (*piece).to_owned()));
        }
        8 if start < pieces.len() => flip(rng, &mut pieces[start]),
        // Deep or long: what is short is repeated.
        9 if rng.chance(100) => {
            let times = usize::try_from(1 << rng.below(9)).unwrap_or(1);
            let (open, close) =
                [("(", ")"), ("[", "]"), ("{'a':", "}"), ("-", ""), ("!", ""), ("", ".a")]
                    [at(rng, 6)];
            pieces.insert(end, close.repeat(times));
            pieces.insert(start, open.repeat(times));
        }
        _ => pieces.insert(start, word(rng, ODD)),
    }
}

fn word(rng: &mut Rng, from: &[&str]) -> String {
    if rng.chance(150) {
        ODD[at(rng, ODD.len())].to_owned()
    } else {
        from[at(rng, from.len())].to_owned()
    }
}

/// Another character somewhere in it.
fn flip(rng: &mut Rng, piece: &mut String) {
    let mut chars: Vec<char> = piece.chars().collect();
    if chars.is_empty() {
        return;
    }
    let place = at(rng, chars.len());
    chars[place] = char::from_u32(u32::try_from(rng.below(128)).unwrap_or(0)).unwrap_or('?');
    *piece = chars.into_iter().collect();
}

/// An index below `length`; 0 where that is 0.
fn at(rng: &mut Rng, length: usize) -> usize {
    usize::try_from(rng.below(length as u64)).unwrap_or(0)
}

/// A short range of `length` places, often of one.
fn span(rng: &mut Rng, length: usize) -> (usize, usize) {
    let start = at(rng, length + 1);
    let reach = if rng.chance(500) { 1 } else { at(rng, 12) };
    (start, (start + reach).min(length))
}

fn pieces(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        _ if c.is_alphanumeric() || c == '_' => 0,
        ' ' => 1,
        _ => 2,
    };
    let mut out = Vec::new();
    let mut start = 0;
    let mut before = 2;
    for (at, c) in text.char_indices() {
        let now = kind(c);
        if at > start && (now != before || now == 2) {
            out.push(&text[start..at]);
            start = at;
        }
        before = now;
    }
    if start < text.len() {
        out.push(&text[start..]);
    }
    out
}
