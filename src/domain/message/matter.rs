//! The words that must never be on a lock screen.
//!
//! A guard against a slip in a text, a name or an address; the person who writes a text stays answerable for what it
//! says. Parts of words are looked for, so that endings make no difference.

const TELLING: [&str; 29] = [
    "suicid",
    "self-harm",
    "selfharm",
    "self harm",
    "crisis",
    "counsel",
    "student",
    "pupil",
    "health",
    "therap",
    "psych",
    "depress",
    "anxiety",
    "diagnos",
    "patient",
    "hostel",
    "distress",
    "overdose",
    "आत्महत्या",
    "खुदकुशी",
    "आत्मघात",
    "छात्र",
    "विद्यार्थी",
    "स्वास्थ्य",
    "मानसिक",
    "परामर्श",
    "संकट",
    "अवसाद",
    "मरीज",
];

/// The first of those words that the text contains, in any case.
pub(super) fn named_in(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    TELLING.into_iter().find(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telling_words_are_found_in_any_case_and_with_any_ending() {
        for text in
            ["SUICIDAL", "a Student", "Counselling", "counsellor", "health-care", "छात्रों", "छात्रावास", "संकटग्रस्त"]
        {
            assert!(named_in(text).is_some(), "{text}");
        }
        for text in
            ["a case needs you", "MITRA", "Fundamental Skills", "https://relay.example.org", "एक मामले में आपकी ज़रूरत है"]
        {
            assert_eq!(named_in(text), None, "{text}");
        }
    }

    #[test]
    fn every_word_is_written_as_it_is_compared() {
        for word in TELLING {
            assert_eq!(named_in(word).map(|found| word.contains(found)), Some(true), "{word}");
        }
    }
}
