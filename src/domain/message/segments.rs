//! How many parts a text takes as an SMS: that is what it costs, and how long it takes to arrive whole.
//!
//! One character outside the GSM-7 alphabet turns the whole text into UCS-2, which has less than half the room.
//! Sources: 3GPP TS 23.038 section 6.2.1 (the alphabet), TS 23.040 section 9.2.3.24 (joined parts); Twilio counts the
//! same way.

/// How an SMS writes its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// Seven bits each; ten characters take two.
    Gsm7,
    /// Sixteen bits each; what lies beyond the basic plane (emoji) takes two.
    Ucs2,
}

impl Encoding {
    /// The encoding's usual name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gsm7 => "GSM-7",
            Self::Ucs2 => "UCS-2",
        }
    }

    /// Units that fit if there is one part only.
    pub const fn units_in_one(self) -> u32 {
        match self {
            Self::Gsm7 => 160,
            Self::Ucs2 => 70,
        }
    }

    /// Units that fit into each of several joined parts; a header takes the rest.
    pub const fn units_per_part(self) -> u32 {
        match self {
            Self::Gsm7 => 153,
            Self::Ucs2 => 67,
        }
    }
}

/// What a text takes as an SMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentCount {
    /// How its characters are written.
    pub encoding: Encoding,
    /// Septets (GSM-7) or 16-bit units (UCS-2).
    pub units: u32,
    /// Parts, each billed; 0 for the empty text only.
    pub segments: u32,
}

const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?\
                     ¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const EXTENSION: &str = "\u{c}^{}\\[~]|€";

/// Septets by ASCII character, 0 for none: most texts have no others, and every message's text is counted.
const ASCII: [u8; 128] = {
    let mut septets = [0; 128];
    let (mut at, basic, extension) = (0, BASIC.as_bytes(), EXTENSION.as_bytes());
    while at < basic.len() {
        if basic[at].is_ascii() {
            septets[basic[at] as usize] = 1;
        }
        at += 1;
    }
    at = 0;
    while at < extension.len() {
        if extension[at].is_ascii() {
            septets[extension[at] as usize] = 2;
        }
        at += 1;
    }
    septets
};

/// Septets that a character takes, if GSM-7 has it.
fn septets(symbol: char) -> Option<u32> {
    if symbol.is_ascii() {
        let septets = ASCII[symbol as usize];
        return (septets > 0).then_some(u32::from(septets));
    }
    if BASIC.contains(symbol) {
        Some(1)
    } else if EXTENSION.contains(symbol) {
        Some(2)
    } else {
        None
    }
}

/// The encoding that the text needs.
pub fn encoding(text: &str) -> Encoding {
    if text.chars().all(|symbol| septets(symbol).is_some()) { Encoding::Gsm7 } else { Encoding::Ucs2 }
}

/// Counts units and parts. A character of two units is never split: where one does not fit, the part stays a unit short.
pub fn count(text: &str) -> SegmentCount {
    let encoding = encoding(text);
    let (mut units, mut segments, mut used) = (0, u32::from(!text.is_empty()), 0);
    for width in widths(text, encoding) {
        units += width;
        used += width;
        if used > encoding.units_per_part() {
            segments += 1;
            used = width;
        }
    }
    if (1..=encoding.units_in_one()).contains(&units) {
        segments = 1;
    }
    SegmentCount { encoding, units, segments }
}

/// The most parts that a text of this kind and of no more units can take, wherever its characters of two units stand.
pub(super) fn upper_bound(text: &str) -> SegmentCount {
    let counted = count(text);
    let pairs = widths(text, counted.encoding).any(|width| width == 2);
    let segments = if counted.units <= counted.encoding.units_in_one() {
        counted.segments
    } else {
        counted.units.div_ceil(counted.encoding.units_per_part() - u32::from(pairs))
    };
    SegmentCount { segments, ..counted }
}

fn widths(text: &str, encoding: Encoding) -> impl Iterator<Item = u32> {
    text.chars().map(move |symbol| match encoding {
        Encoding::Gsm7 => septets(symbol).unwrap_or(1),
        Encoding::Ucs2 => symbol.len_utf16() as u32,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(text: &str) -> (Encoding, u32, u32) {
        let SegmentCount { encoding, units, segments } = count(text);
        (encoding, units, segments)
    }

    #[test]
    fn the_alphabet_has_every_place_of_the_standard_once() {
        let mut symbols: Vec<char> = BASIC.chars().chain(EXTENSION.chars()).collect();
        assert_eq!((BASIC.chars().count(), EXTENSION.chars().count()), (127, 10));
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!(symbols.len(), 137);
    }

    #[test]
    fn characters_on_the_edge_of_the_alphabet_are_told_apart() {
        for inside in "äöüßÄÖÜñéèàÇ@_\n\r€[]{}^~|\\".chars() {
            assert_eq!(encoding(&inside.to_string()), Encoding::Gsm7, "{inside:?}");
        }
        for outside in "ç`\t“”‘’–…\u{a0}áक😀".chars() {
            assert_eq!(encoding(&outside.to_string()), Encoding::Ucs2, "{outside:?}");
        }
    }

    #[test]
    fn parts_fill_up_to_their_documented_lengths() {
        use Encoding::{Gsm7, Ucs2};
        assert_eq!(counted(""), (Gsm7, 0, 0));
        assert_eq!(counted(&"a".repeat(160)), (Gsm7, 160, 1));
        assert_eq!(counted(&"a".repeat(161)), (Gsm7, 161, 2));
        assert_eq!(counted(&"a".repeat(306)), (Gsm7, 306, 2));
        assert_eq!(counted(&"a".repeat(307)), (Gsm7, 307, 3));
        assert_eq!(counted(&"a".repeat(1600)), (Gsm7, 1600, 11));
        assert_eq!(counted(&"क".repeat(70)), (Ucs2, 70, 1));
        assert_eq!(counted(&"क".repeat(71)), (Ucs2, 71, 2));
        assert_eq!(counted(&"क".repeat(134)), (Ucs2, 134, 2));
        assert_eq!(counted(&"क".repeat(135)), (Ucs2, 135, 3));
        assert_eq!(counted(&format!("{}क", "a".repeat(70))), (Ucs2, 71, 2));
        assert_eq!(counted(&"€".repeat(80)), (Gsm7, 160, 1));
        assert_eq!(counted(&"😀".repeat(35)), (Ucs2, 70, 1));
    }

    #[test]
    fn a_character_of_two_units_is_never_split() {
        let text = format!("{}{{{}", "a".repeat(152), "a".repeat(152));
        assert_eq!(counted(&text), (Encoding::Gsm7, 306, 3));
        let text = format!("{}😀{}", "क".repeat(66), "क".repeat(66));
        assert_eq!(counted(&text), (Encoding::Ucs2, 134, 3));
    }

    /// The same count by other means: cuts the encoded units into parts, and steps back from a cut through a pair.
    fn naive(text: &str) -> (u32, u32) {
        const ESCAPE: u16 = 0xFFFF;
        let gsm = text.chars().all(|symbol| BASIC.contains(symbol) || EXTENSION.contains(symbol));
        let (units, single, part): (Vec<u16>, _, _) = if gsm {
            let escaped = |symbol: char| if EXTENSION.contains(symbol) { vec![ESCAPE, 1] } else { vec![1] };
            (text.chars().flat_map(escaped).collect(), 160, 153)
        } else {
            (text.encode_utf16().collect(), 70, 67)
        };
        let opens_pair = |unit: u16| if gsm { unit == ESCAPE } else { (0xD800..0xDC00).contains(&unit) };
        let (mut segments, mut rest) = (0, units.as_slice());
        while !rest.is_empty() {
            let limit = if units.len() <= single { single } else { part };
            let mut cut = rest.len().min(limit);
            if cut < rest.len() && opens_pair(rest[cut - 1]) {
                cut -= 1;
            }
            (segments, rest) = (segments + 1, &rest[cut..]);
        }
        (units.len() as u32, segments)
    }

    proptest! {
        #[test]
        fn counting_agrees_with_cutting(
            text in prop_oneof!["[a-z{€]{0,500}", "[a-zकि😀]{0,300}", "\\PC{0,200}", "[{]{0,400}", "[😀a]{0,200}"],
        ) {
            let counted = count(&text);
            prop_assert_eq!((counted.units, counted.segments), naive(&text));
            prop_assert!(counted.segments <= upper_bound(&text).segments);
        }

        #[test]
        fn the_upper_bound_holds_for_every_order_of_the_characters(
            text in proptest::collection::vec(prop_oneof![Just('a'), Just('€')], 100..400)
                .prop_flat_map(|symbols| (Just(symbols.clone()), Just(symbols).prop_shuffle())),
        ) {
            let (one, other): (String, String) = (text.0.into_iter().collect(), text.1.into_iter().collect());
            prop_assert!(count(&other).segments <= upper_bound(&one).segments);
        }
    }
}
