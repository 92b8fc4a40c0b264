//! Fields whose type alone would refuse a value with a rule that helps nobody: each here says the rule that holds.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::domain::contact::ContactRole;

/// A time in RFC 3339 form.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Rfc3339(pub(super) Timestamp);

impl TryFrom<String> for Rfc3339 {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self).map_err(|_| "must be a time in RFC 3339 form, such as 2026-11-20T08:35:00Z")
    }
}

/// A role that people of the college have, and none that only students' own people have.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct StaffRole(pub(super) ContactRole);

impl TryFrom<String> for StaffRole {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        ContactRole::staff_from_word(&text).map(Self).ok_or("must be counsellor, lead or duty_manager")
    }
}

pub(super) fn staff_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ContactRole, D::Error> {
    StaffRole::deserialize(deserializer).map(|StaffRole(role)| role)
}

pub(super) fn staff_role_if_given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ContactRole>, D::Error> {
    Ok(Option::<StaffRole>::deserialize(deserializer)?.map(|StaffRole(role)| role))
}

/// A whole number whose range is a rule of the domain, which names it: what does not even fit the type is out of range, too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole(pub(super) u32);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        Ok(Self(u32::try_from(number).unwrap_or(u32::MAX)))
    }
}

pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(number)| number)
}

pub(super) fn whole_if_given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<Whole>::deserialize(deserializer)?.map(|Whole(number)| number))
}
