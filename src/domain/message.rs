//! placeholder
use super::contact::Language;
/// Composed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// t
    pub template: String,
    /// v
    pub version: u32,
    /// l
    pub language: Language,
    /// t
    pub text: String,
    /// v
    pub variables: Vec<String>,
    /// s
    pub text_sha256: String,
}
