//! How many parts a text message takes.
//!
//! Source: GSM 03.38 for the alphabet; 160 septets or 70 UTF-16 units in one part, 153 or 67 each in several, and
//! neither an escaped character nor a surrogate pair is split.

/// The basic set (one septet each), without the escape.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// The extension (an escape and a septet each).
const EXTENSION: &str = "^{}\\[~]|€\u{c}";

/// The number of parts; an empty text is one.
pub(super) fn segments(text: &str) -> usize {
    let septets = |c: char| {
        if BASIC.contains(c) {
            Some(1)
        } else if EXTENSION.contains(c) {
            Some(2)
        } else {
            None
        }
    };
    if text.chars().all(|c| septets(c).is_some()) {
        parts(text.chars().filter_map(septets), 160, 153)
    } else {
        parts(text.chars().map(char::len_utf16), 70, 67)
    }
}

fn parts(units: impl Iterator<Item = usize> + Clone, single: usize, each: usize) -> usize {
    if units.clone().sum::<usize>() <= single {
        return 1;
    }
    let (mut parts, mut used) = (1, 0);
    for unit in units {
        if used + unit > each {
            parts += 1;
            used = 0;
        }
        used += unit;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn parts_are_counted_as_carriers_count_them() {
        let a = |n| "a".repeat(n);
        assert_eq!(segments(""), 1);
        assert_eq!(segments(&a(160)), 1);
        assert_eq!(segments(&a(161)), 2);
        assert_eq!(segments(&a(1600)), 11);
        assert_eq!(segments(&"ü".repeat(160)), 1);
        assert_eq!(segments(&"ç".repeat(70)), 1);
        assert_eq!(segments(&"ç".repeat(71)), 2);
        assert_eq!(segments(&"😀".repeat(35)), 1);
        assert_eq!(segments(&"😀".repeat(34 + 33)), 3);
        // An escaped character that would straddle the seam moves to the next part whole.
        assert_eq!(segments(&format!("{}{{{}", a(152), a(152))), 3);
    }
}
