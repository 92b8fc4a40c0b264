//! The text that a one-time code is sent in. It tells nothing of what the service is for.

use crate::domain::contact::Language;

/// The text, in the language if there is one in it, else in English.
pub fn code_text(language: &Language, sender: &str, code: &str, minutes: u64) -> String {
    match language.as_str() {
        "hi" => format!("{sender}: आपका कोड {code} है। यह {minutes} मिनट तक मान्य है। इसे किसी और को न बताएँ।"),
        _ => format!("{sender}: your code is {code}. It counts for {minutes} minutes. Tell it to nobody else."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_stands_in_a_text_that_says_what_it_is_and_fits_one_message() {
        for language in ["en", "hi", "ta"] {
            let text = code_text(&language.parse().unwrap(), "Care desk", "012345", 10);
            assert!(text.contains("012345") && text.contains("Care desk") && text.contains("10"), "{text}");
            assert!(!text.to_lowercase().contains("crisis") && !text.to_lowercase().contains("counsel"), "{text}");
            assert!(super::super::segments::count(&text).segments <= 2, "{text}");
        }
    }
}
