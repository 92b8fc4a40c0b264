//! Where everything is kept: the implementations of [`crate::ports::Store`].

pub mod firestore;
mod json;
pub mod sqlite;
