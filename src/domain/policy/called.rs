//! Whom targets come to.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Target;
use crate::domain::contact::{Channel, Contact, Directory};
use crate::domain::ids::ContactId;

/// Whom the targets of a step come to at one instant.
#[derive(Debug)]
pub struct Called<'d> {
    /// Everybody who is set up, in the order of the targets, each once.
    pub people: Vec<&'d Contact>,
    /// Those who are named and are not set up any more: whoever is stands in for them.
    pub missing: Vec<ContactId>,
    /// Among the targets is a role or a schedule that comes to nobody just now.
    pub has_vacancy: bool,
}

impl<'d> Called<'d> {
    /// Resolves targets: whoever is on call `at` this instant, and everybody of a role.
    pub fn new(targets: &[Target], directory: &'d Directory, at: Timestamp) -> Self {
        let (mut called, mut seen) =
            (Self { people: Vec::new(), missing: Vec::new(), has_vacancy: false }, BTreeSet::new());
        for target in targets {
            let people = target.people(directory, at);
            match target {
                Target::Contact(id) if people.is_empty() => called.missing.push(id.clone()),
                Target::Contact(_) => {}
                Target::Role(_) | Target::Schedule(_) => called.has_vacancy |= people.is_empty(),
            }
            called.people.extend(people.into_iter().filter(|person| seen.insert(&person.id)));
        }
        called
    }

    /// Nobody is on call: a role or a schedule is named, and nobody at all is there to be told.
    pub fn is_vacant(&self) -> bool {
        self.has_vacancy && self.people.is_empty() && self.missing.is_empty()
    }
}

impl Target {
    /// Everybody whom this comes to at one instant, as far as they are set up.
    pub fn people<'d>(&self, directory: &'d Directory, at: Timestamp) -> Vec<&'d Contact> {
        match self {
            Self::Contact(_) | Self::Role(_) => self.ever(directory),
            Self::Schedule(id) => {
                let on_call = directory.schedule(id).map(|schedule| schedule.on_call(at)).unwrap_or_default();
                on_call.iter().filter_map(|id| directory.contact(id)).collect()
            }
        }
    }

    /// Everybody whom this may come to at any time, as far as they are set up.
    pub fn ever<'d>(&self, directory: &'d Directory) -> Vec<&'d Contact> {
        match self {
            Self::Contact(id) => directory.contact(id).into_iter().collect(),
            Self::Role(role) => directory.with_role(*role).collect(),
            Self::Schedule(id) => {
                let named = directory.schedule(id).map(super::super::schedule::Schedule::names).unwrap_or_default();
                named.into_iter().filter_map(|id| directory.contact(id)).collect()
            }
        }
    }

    /// Over which of these channels somebody may be told on its account. For a person who is not set up any more, anybody
    /// who is, over anything.
    pub(super) fn reaches(&self, directory: &Directory, channels: &[Channel]) -> Vec<Channel> {
        let over = |person: &Contact| person.methods.iter().map(|method| method.channel).collect::<Vec<_>>();
        match self {
            Self::Contact(id) if directory.contact(id).is_none() => directory.people().flat_map(over).collect(),
            Self::Contact(_) | Self::Role(_) | Self::Schedule(_) => {
                let theirs = self.ever(directory).into_iter().flat_map(over);
                theirs.filter(|channel| channels.contains(channel)).collect()
            }
        }
    }
}
