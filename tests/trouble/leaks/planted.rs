//! The search itself: leaks of every kind are planted, and have to be found; what is innocent is planted, too.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::search::{Mark, Search, Wanted};

const WORDS: &str = "z7kq2mhd94xw";
const NATIONAL: &str = "9481063527";

/// A hash that was made with a key.
const KEYED: [u8; 32] = *b"\x9f\x03\xe7\x51\xaa\x1c\xd0\x8e-and-further-bytes-of-it";

fn search() -> Search {
    let words = Wanted { mark: Mark::Words(WORDS), values: vec![format!("Dr. {WORDS} <&>")] };
    let number = Wanted { mark: Mark::Number { country: "91", national: NATIONAL }, values: Vec::new() };
    let body = Wanted { mark: Mark::Digests { keyed: None }, values: vec![r#"{"user_id":"a"}"#.to_owned()] };
    let keyed = Wanted { mark: Mark::Digests { keyed: Some(&KEYED) }, values: Vec::new() };
    Search::of(&[words, number, body, keyed])
}

/// Plants each leak by itself, with bytes around it that are no UTF-8, and fails unless it is found as what it is.
#[track_caller]
fn all_found(which: usize, leaks: impl IntoIterator<Item = Vec<u8>>) {
    let search = search();
    for leak in leaks {
        let planted = [b"line \xff\xfe\n{\"field\":\"".as_slice(), &leak, b"\"} \xc3\n".as_slice()].concat();
        let found: Vec<usize> = search.find(&planted).iter().map(|found| found.which).collect();
        assert_eq!(found, [which], "{:?} is not found", String::from_utf8_lossy(&leak));
    }
}

fn escaped(text: &str, form: impl Fn(u8) -> String) -> Vec<u8> {
    text.bytes().map(form).collect::<String>().into()
}

/// A text in all kinds of clothes.
fn dressed(text: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![
        text.into(),
        text.to_uppercase().into(),
        text.bytes().rev().collect(),
        HEXLOWER.encode(text.as_bytes()).into(),
        HEXUPPER.encode(text.as_bytes()).into(),
        escaped(text, |byte| format!("%{byte:02X}")),
        escaped(text, |byte| format!("\\u{byte:04x}")),
        escaped(text, |byte| format!("\\u{{{byte:x}}}")),
        escaped(text, |byte| format!("\\x{byte:02X}")),
        text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        format!("{:?}", text.as_bytes()).into(),
    ];
    for before in ["", "?", "?~"] {
        let inside = format!("{before}{text}{before}>~ and more");
        all.push(BASE64.encode(inside.as_bytes()).into());
        all.push(BASE64URL_NOPAD.encode(inside.as_bytes()).into());
    }
    all
}

/// A digest in all kinds of clothes.
fn digests(value: &str) -> Vec<Vec<u8>> {
    let all = [Sha256::digest(value).to_vec(), Sha1::digest(value).to_vec(), Md5::digest(value).to_vec()];
    all.iter().flat_map(|digest| clothes(digest)).collect()
}

fn clothes(digest: &[u8]) -> Vec<Vec<u8>> {
    let hex = HEXLOWER.encode(digest);
    let behind = [b"key".as_slice(), digest].concat();
    vec![
        digest.to_vec(),
        hex.clone().into(),
        hex.to_uppercase().into(),
        // As a short id, and the end of one.
        hex[..12].into(),
        format!("…{}", &hex[hex.len() - 12..]).into(),
        BASE64.encode(digest).into(),
        BASE64URL_NOPAD.encode(digest).into(),
        BASE64.encode(&behind).into(),
        format!("{digest:?}").into(),
    ]
}

#[test]
fn a_text_is_found_however_it_is_written() {
    all_found(0, dressed(WORDS));
}

#[test]
fn a_text_is_found_that_was_cut_short() {
    for part in [&WORDS[..8], &WORDS[2..10], &WORDS[4..]] {
        all_found(0, dressed(part));
    }
    assert!(search().find(&WORDS.as_bytes()[..7]).is_empty(), "seven characters may be an accident");
}

#[test]
fn a_digest_of_a_text_is_found() {
    let whole = format!("Dr. {WORDS} <&>");
    for value in [WORDS, &WORDS.to_uppercase(), &format!("\"{WORDS}\""), &whole, &whole.to_lowercase()] {
        all_found(0, digests(value));
    }
    all_found(2, digests(r#"{"user_id":"a"}"#));
}

#[test]
fn a_keyed_hash_is_found_that_is_known() {
    all_found(3, clothes(&KEYED));
}

#[test]
fn a_number_is_found_however_it_is_written() {
    all_found(1, dressed(NATIONAL));
    all_found(1, dressed(&format!("whatsapp:+91{NATIONAL}")));
    for text in ["94810 63527", "948-106-3527", "(948) 106-3527"] {
        all_found(1, [text.into()]);
    }
    for number in [9_481_063_527_u64, 919_481_063_527] {
        all_found(1, [number.to_be_bytes().to_vec(), number.to_le_bytes().to_vec()]);
    }
}

#[test]
fn a_digest_of_a_number_is_found() {
    for before in ["+91", "91", "0091", "", "0", "whatsapp:+91", "whatsapp:91", "tel:+91"] {
        all_found(1, digests(&format!("{before}{NATIONAL}")));
    }
}

#[test]
fn a_number_is_found_that_was_cut_short() {
    for text in ["063527", "81063527", "****3527", "+91 ******3527", "…3527", "+91948106", "9481063", "94810*****"] {
        all_found(1, [text.into()]);
    }
    for text in [
        // Two digits, as the service's own log shows them; counts, times, ids.
        "…27",
        "3527",
        "63527",
        "2026-11-20T08:35:00.063527Z",
        "a063527b",
        "7063527",
        "+91948",
        "0635270",
    ] {
        let found = search().find(format!("line {text} and more").as_bytes());
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

#[test]
fn what_is_sealed_or_hashed_with_a_key_is_not_taken_for_a_leak() {
    use crisis_relay::clock::SeededEntropy;
    use crisis_relay::ports::Entropy as _;
    let mut noise = vec![0; 1 << 20];
    SeededEntropy::new(1).fill(&mut noise);
    let text = [noise.clone(), HEXLOWER.encode(&noise).into(), BASE64.encode(&noise).into()].concat();
    assert_eq!(search().find(&text), []);
}
