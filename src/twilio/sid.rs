//! The shape of Twilio's identifiers: two capital letters that name the kind, and 32 hexadecimal digits.

use crate::domain::ids::ProviderId;

/// Whether `text` is an identifier of the kind that `prefix` names (`AC`, `SK`, `HX`, `MG`, `SM` …).
pub(super) fn is_sid(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A call's identifier, checked.
pub(super) fn call_sid(text: &str) -> Option<ProviderId> {
    is_sid("CA", text).then(|| text.parse().ok()).flatten()
}

/// Whether `text` names a message: `SM`, or `MM` where media or a template is involved.
pub(super) fn is_message_sid(text: &str) -> bool {
    is_sid("SM", text) || is_sid("MM", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_prefix_and_32_hexadecimal_digits_pass() {
        let digits = "0123456789abcdefABCDEF0123456789";
        assert!(is_sid("AC", &format!("AC{digits}")));
        assert!(is_message_sid(&format!("SM{digits}")) && is_message_sid(&format!("MM{digits}")));
        for wrong in
            ["", "AC", &format!("SK{digits}"), &format!("AC{digits}0"), "AC../../../../../../../../../../../../"]
        {
            assert!(!is_sid("AC", wrong), "{wrong}");
        }
    }
}
