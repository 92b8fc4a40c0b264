//! A text that must not be seen: tokens, keys, shared secrets.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text. Wiped from memory when dropped; its `Debug` shows nothing of it, and it has no `Display`.
///
/// It cannot be compared with `==` either: comparing secrets is done in constant time, where it is needed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself: only for the request, or the computation, that it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let secret = Secret::new("canary".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.expose(), "canary");
    }
}
