//! Where everything is kept: the implementations of [`crate::ports::Store`].

pub mod sqlite;
