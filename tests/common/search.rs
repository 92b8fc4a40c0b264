//! Looks for what somebody said or owns, in every way in which a program may have written it: as it is, in capitals,
//! backwards, escaped, encoded, cut short, or as a digest without a key. It is given random marks, so that what it finds is
//! no accident, and looks for all of them in one walk.
//!
//! What it cannot find: a text that was compressed, sealed, or hashed with a key (unless it is told the hash), or less of
//! it than [`WINDOW`] characters.

use std::collections::BTreeSet;

use aho_corasick::AhoCorasick;
use data_encoding::{BASE64, BASE64URL, HEXLOWER};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// So many characters of a mark, wherever in it they begin, give it away.
pub const WINDOW: usize = 8;
/// So many bytes of a digest give away what it is of.
const DIGEST_BYTES: usize = 9;
/// So many hexadecimal digits do: cut short like this, digests are shown to people.
const DIGEST_HEX_DIGITS: usize = 12;
/// The last so many digits of a number give it away wherever they stand alone.
const DIGITS_ALONE: usize = 6;
/// So many do where signs stand for those that are left out.
const DIGITS_MASKED: usize = 4;

/// What tells a text from everything else.
#[derive(Debug, Clone, Copy)]
pub enum Mark<'a> {
    /// Random letters and digits in lower case, at least [`WINDOW`] of them.
    Words(&'a str),
    /// A phone number: random digits, with the country's before them.
    Number {
        /// `91`.
        country: &'a str,
        /// Ten digits.
        national: &'a str,
    },
    /// Too long or too common to be looked for but by its digests.
    Digests {
        /// One that was made with a key, which only who made it can know.
        keyed: Option<&'a [u8]>,
    },
}

/// Something to look for.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// What tells it from everything else.
    pub mark: Mark<'a>,
    /// What was said as a whole, which is what a digest would be made of.
    pub values: Vec<String>,
}

/// Something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The place in the list of what was looked for.
    pub which: usize,
    /// How it is written.
    pub form: &'static str,
    /// Where it begins, in bytes.
    pub place: usize,
}

/// A search for many things at once.
pub struct Search {
    needles: AhoCorasick,
    /// What each needle belongs to, and how it is written.
    told: Vec<(usize, &'static str)>,
    /// The numbers, with the country's digits and without.
    numbers: Vec<(usize, String, String)>,
    count: usize,
}

type Needles = BTreeSet<(Vec<u8>, &'static str)>;

impl Search {
    /// A search for all of these.
    pub fn of(wanted: &[Wanted<'_>]) -> Self {
        let (mut bytes, mut told, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for (which, wanted) in wanted.iter().enumerate() {
            let mut needles = Needles::new();
            let mut values: BTreeSet<String> = wanted.values.iter().cloned().collect();
            match wanted.mark {
                Mark::Words(mark) => {
                    words(mark, &mut needles);
                    values.insert(mark.to_owned());
                }
                Mark::Number { country, national } => {
                    let whole = format!("{country}{national}");
                    number(&whole, national, &mut needles);
                    values.extend(ways_to_dial(country, national));
                    numbers.push((which, whole, national.to_owned()));
                }
                Mark::Digests { keyed: None } => {}
                Mark::Digests { keyed: Some(hash) } => digest(hash, "as its keyed hash", &mut needles),
            }
            for value in values.iter().flat_map(|value| normalised(value)) {
                digests(value.as_bytes(), &mut needles);
            }
            for (needle, form) in needles {
                bytes.push(needle);
                told.push((which, form));
            }
        }
        let needles = AhoCorasick::builder().ascii_case_insensitive(true).build(bytes).expect("the needles fit");
        Self { needles, told, numbers, count: wanted.len() }
    }

    /// Where each of them stands first, if it does.
    pub fn find(&self, bytes: &[u8]) -> Vec<Found> {
        let mut first: Vec<Option<Found>> = vec![None; self.count];
        for hit in self.needles.find_overlapping_iter(bytes) {
            let (which, form) = self.told[hit.pattern().as_usize()];
            first[which].get_or_insert(Found { which, form, place: hit.start() });
        }
        if !self.numbers.is_empty() {
            for (place, end) in runs_of_digits(bytes) {
                for (which, whole, national) in &self.numbers {
                    if let Some(form) = cut_short(bytes, place, end, whole, national) {
                        first[*which].get_or_insert(Found { which: *which, form, place });
                    }
                }
            }
        }
        first.into_iter().flatten().collect()
    }
}

fn words(mark: &str, needles: &mut Needles) {
    assert!(mark.len() >= WINDOW && mark.is_ascii(), "{mark} is too short to be told from an accident");
    let backwards: String = mark.chars().rev().collect();
    for (text, form) in [(mark, "as it is, or a part"), (&backwards, "backwards")] {
        for window in text.as_bytes().windows(WINDOW) {
            needles.insert((window.to_vec(), form));
        }
    }
    for window in mark.as_bytes().windows(WINDOW) {
        encodings(window, needles);
        encodings(&window.to_ascii_uppercase(), needles);
    }
}

fn number(whole: &str, national: &str, needles: &mut Needles) {
    needles.insert((national.into(), "as it is"));
    needles.insert((national.bytes().rev().collect(), "backwards"));
    encodings(national.as_bytes(), needles);
    // As people write numbers.
    let (area, (exchange, line)) = (&national[..3], national[3..].split_at(3));
    needles.insert((format!("{area}) {exchange}-{line}").into(), "in groups"));
    for groups in [vec![5, 5], vec![3, 3, 4], vec![4, 3, 3], vec![2, 4, 4], vec![3, 4, 3]] {
        for between in [" ", "-", "."] {
            let mut rest = national;
            let mut parts = Vec::new();
            for group in &groups {
                let (part, further) = rest.split_at(*group);
                parts.push(part);
                rest = further;
            }
            needles.insert((parts.join(between).into(), "in groups"));
        }
    }
    // As an integer, without its leading zero bytes: a database's form, and a machine's own.
    for digits in [whole, national] {
        let number: u64 = digits.parse().expect("digits make a number");
        let bytes = number.to_be_bytes();
        let significant = &bytes[number.leading_zeros() as usize / 8..];
        assert!(significant.len() >= 5, "{digits} is too small to be told from an accident");
        needles.insert((significant.to_vec(), "as an integer"));
        needles.insert((significant.iter().rev().copied().collect(), "as an integer"));
    }
}

/// The plain bytes in other clothes.
fn encodings(bytes: &[u8], needles: &mut Needles) {
    let each = |form: &dyn Fn(u8) -> String| bytes.iter().map(|byte| form(*byte)).collect::<String>().into_bytes();
    needles.insert((HEXLOWER.encode(bytes).into(), "in hexadecimal"));
    needles.insert((each(&|byte| format!("%{byte:02x}")), "percent-encoded"));
    needles.insert((each(&|byte| format!("\\u{byte:04x}")), "in JSON's escapes"));
    needles.insert((each(&|byte| format!("\\u{{{byte:x}}}")), "in Rust's escapes"));
    needles.insert((each(&|byte| format!("\\x{byte:02x}")), "in escapes"));
    needles.insert((each(&|byte| format!("&#{byte};")), "in HTML's escapes"));
    needles.insert((each(&|byte| format!("&#x{byte:x};")), "in HTML's escapes"));
    // Without the byte at the end that differs between the two byte orders.
    let wide: Vec<u8> = bytes.iter().flat_map(|byte| [*byte, 0]).collect();
    needles.insert((wide[..wide.len() - 1].to_vec(), "in UTF-16"));
    listed(bytes, "as a list of bytes", needles);
    for encoded in [&BASE64, &BASE64URL].into_iter().flat_map(|alphabet| base64_inside(bytes, alphabet)) {
        needles.insert((encoded.into(), "in base64"));
    }
}

fn listed(bytes: &[u8], form: &'static str, needles: &mut Needles) {
    let decimals: Vec<String> = bytes.iter().map(u8::to_string).collect();
    for between in [",", ", "] {
        needles.insert((decimals.join(between).into(), form));
    }
    let hexadecimals: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    for between in [":", " "] {
        needles.insert((hexadecimals.join(between).into(), form));
    }
}

/// What `bytes` look like inside base64, wherever in the encoded bytes they begin.
fn base64_inside(bytes: &[u8], alphabet: &data_encoding::Encoding) -> impl Iterator<Item = String> {
    (0..3_usize).map(move |before| {
        let mut all = vec![0; before];
        all.extend_from_slice(bytes);
        // Only the characters that nothing before or after has a part in.
        alphabet.encode(&all)[(before * 8).div_ceil(6)..all.len() * 8 / 6].to_owned()
    })
}

fn ways_to_dial(country: &str, national: &str) -> Vec<String> {
    let international = ["+", "", "00", "whatsapp:+", "whatsapp:", "tel:+", "sms:+", "whatsapp%3A%2B", "%2B"];
    let mut ways: Vec<String> = international.iter().map(|before| format!("{before}{country}{national}")).collect();
    ways.extend([national.to_owned(), format!("0{national}")]);
    ways
}

/// A value as it is, and as somebody may have tidied it up before making a digest of it.
fn normalised(value: &str) -> BTreeSet<String> {
    [value.to_owned(), value.trim().to_owned(), value.to_lowercase(), value.to_uppercase(), format!("\"{value}\"")]
        .into()
}

fn digests(bytes: &[u8], needles: &mut Needles) {
    let all: [(Vec<u8>, &'static str); 3] = [
        (Sha256::digest(bytes).to_vec(), "as its SHA-256"),
        (Sha1::digest(bytes).to_vec(), "as its SHA-1"),
        (Md5::digest(bytes).to_vec(), "as its MD5"),
    ];
    for (bytes, form) in all {
        digest(&bytes, form, needles);
    }
}

/// A digest in all its clothes.
fn digest(digest: &[u8], form: &'static str, needles: &mut Needles) {
    let begin = &digest[..DIGEST_BYTES];
    needles.insert((begin.to_vec(), form));
    let hexadecimal = HEXLOWER.encode(digest);
    needles.insert((hexadecimal[..DIGEST_HEX_DIGITS].into(), form));
    needles.insert((hexadecimal[hexadecimal.len() - DIGEST_HEX_DIGITS..].into(), form));
    listed(begin, form, needles);
    for encoded in [&BASE64, &BASE64URL].into_iter().flat_map(|alphabet| base64_inside(begin, alphabet)) {
        needles.insert((encoded.into(), form));
    }
}

/// Where digits stand that no letter or further digit touches.
fn runs_of_digits(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let begin = at + bytes[at..].iter().position(u8::is_ascii_digit)?;
            at = begin + bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if at - begin >= DIGITS_MASKED {
                return Some((begin, at));
            }
        }
    })
}

/// Whether the digits are what was left of a number that was cut short.
fn cut_short(bytes: &[u8], begin: usize, end: usize, whole: &str, national: &str) -> Option<&'static str> {
    let digits = std::str::from_utf8(&bytes[begin..end]).ok()?;
    let (before, after) = (&bytes[..begin], &bytes[end..]);
    let is_end = national.ends_with(digits);
    let is_beginning = digits.len() > whole.len() - national.len() && whole.starts_with(digits);
    let is_own_beginning = national.starts_with(digits);
    let letter_before = before.last().is_some_and(u8::is_ascii_alphabetic);
    let letter_after = after.first().is_some_and(u8::is_ascii_alphabetic);
    // Behind a point are parts of a second.
    let alone = !letter_before && !letter_after && before.last() != Some(&b'.');
    if is_end && alone && digits.len() >= DIGITS_ALONE {
        return Some("its last digits");
    }
    if is_end && masks_before(before) {
        return Some("its last digits, behind a mask");
    }
    // One digit more than at the end, where a zero tells it from a count.
    let country = if is_beginning { whole.len() - national.len() } else { 1 };
    if (is_beginning || is_own_beginning) && alone && digits.len() >= DIGITS_ALONE + country {
        return Some("its first digits");
    }
    if (is_beginning || is_own_beginning) && masks_after(after) && digits.len() > DIGITS_MASKED {
        return Some("its first digits, before a mask");
    }
    None
}

/// What people put for digits that they leave out.
const MASKS: [&str; 7] = ["**", "##", "xx", "XX", "\u{2022}", "\u{2026}", "..."];

fn masks_before(before: &[u8]) -> bool {
    let before = before.strip_suffix(b" ").or_else(|| before.strip_suffix(b"-")).unwrap_or(before);
    MASKS.iter().any(|mask| before.ends_with(mask.as_bytes()))
}

fn masks_after(after: &[u8]) -> bool {
    let after = after.strip_prefix(b" ").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
    MASKS.iter().any(|mask| after.starts_with(mask.as_bytes()))
}
