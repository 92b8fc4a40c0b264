//! The walk over all waiting alerts, for times that nothing would be due at: after a start, and after the clock was set
//! back.
//!
//! Some pages a round, so that due work goes between. Where places run out, the walk stops; the next round begins with
//! those that found none, and then goes on from where it stood. So it ends, however many alerts are waiting.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::{WokenAlerts, Worker};
use crate::domain::ids::AlertId;

/// How many pages are read in one round.
const PAGES_A_ROUND: usize = 4;

/// Where the walk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is over.
    Ended,
    /// At the first page.
    First,
    /// Behind this alert.
    After(AlertId),
}

/// The walk. A new one begins by looking at every alert.
#[derive(Debug)]
pub(super) struct Sweep(Mutex<Walk>);

#[derive(Debug)]
struct Walk {
    place: Place,
    /// Once it is over, it begins again: the clock was set back on the way.
    again: bool,
    /// Passed, and not looked at: there was no place, or the store failed.
    passed: BTreeSet<AlertId>,
}

impl Default for Sweep {
    fn default() -> Self {
        Self(Mutex::new(Walk { place: Place::First, again: false, passed: BTreeSet::new() }))
    }
}

impl Sweep {
    /// Every alert is to be looked at from now on. A walk that is under way is not begun anew, for then its end might
    /// never come; it is followed by another.
    pub(super) fn begin(&self) {
        let mut walk = self.0.lock();
        match walk.place {
            Place::Ended => walk.place = Place::First,
            Place::First => {}
            Place::After(_) => walk.again = true,
        }
    }

    /// Every alert has been looked at in another way.
    pub(super) fn is_done(&self) {
        *self.0.lock() = Walk { place: Place::Ended, again: false, passed: BTreeSet::new() };
    }

    fn take_passed(&self) -> Vec<AlertId> {
        std::mem::take(&mut self.0.lock().passed).into_iter().collect()
    }

    fn pass_by(&self, woken: &WokenAlerts) -> usize {
        let mut walk = self.0.lock();
        walk.passed.extend(woken.left.iter().chain(&woken.no_place));
        walk.passed.len()
    }

    /// Behind which alert the next page begins. `None`: there is none.
    fn next_page(&self) -> Option<Option<AlertId>> {
        match self.0.lock().place {
            Place::Ended => None,
            Place::First => Some(None),
            Place::After(id) => Some(Some(id)),
        }
    }

    /// A page was read, and this was the last alert on it; without one, the walk is over.
    fn turn(&self, last: Option<AlertId>) {
        let mut walk = self.0.lock();
        walk.place = match last {
            Some(last) => Place::After(last),
            None if std::mem::take(&mut walk.again) => Place::First,
            None => Place::Ended,
        };
    }
}

impl Worker {
    /// Goes on with the walk. Returns whether it can go on at once.
    pub(super) async fn sweep(&self) -> bool {
        let passed = self.sweep.take_passed();
        if !passed.is_empty() {
            let woken = self.wake_all(passed, false).await;
            if self.must_pause(&woken) {
                return false;
            }
        }
        for _ in 0..PAGES_A_ROUND {
            let Some(after) = self.sweep.next_page() else { return false };
            // The round's own reading fails likewise, and is logged.
            let Ok(ids) = self.service.unfinished(after, self.settings.due_batch).await else { return false };
            self.sweep.turn(ids.last().copied());
            let woken = self.wake_all(ids, false).await;
            if self.must_pause(&woken) {
                return false;
            }
        }
        self.sweep.next_page().is_some()
    }

    /// Keeps what was passed by. Without places the walk gets no further in this round; nor may it pass by more than two
    /// pages hold, so that what it keeps stays bounded. A single alert that the store fails for stops nobody.
    fn must_pause(&self, woken: &WokenAlerts) -> bool {
        let passed = self.sweep.pass_by(woken);
        !woken.no_place.is_empty() || passed > self.settings.due_batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(number: u8) -> AlertId {
        format!("00000000-0000-7000-8000-0000000000{number:02}").parse().unwrap()
    }

    #[test]
    fn a_walk_that_is_begun_anew_on_the_way_goes_to_its_end_first() {
        let sweep = Sweep::default();
        assert_eq!(sweep.next_page(), Some(None));
        sweep.turn(Some(alert(7)));
        sweep.begin();
        sweep.begin();
        assert_eq!(sweep.next_page(), Some(Some(alert(7))), "it stays where it is");
        sweep.turn(None);
        assert_eq!(sweep.next_page(), Some(None), "and is followed by another");
        sweep.turn(None);
        assert_eq!(sweep.next_page(), None, "by one");
        sweep.begin();
        assert_eq!(sweep.next_page(), Some(None));
    }

    #[test]
    fn what_was_passed_by_is_kept_once_and_handed_out_once() {
        let sweep = Sweep::default();
        let woken = WokenAlerts { worked: false, left: vec![alert(2), alert(1)], no_place: vec![alert(2), alert(3)] };
        assert_eq!(sweep.pass_by(&woken), 3);
        assert_eq!(sweep.pass_by(&woken), 3);
        assert_eq!(sweep.take_passed(), [alert(1), alert(2), alert(3)]);
        assert_eq!(sweep.take_passed(), []);
        sweep.pass_by(&woken);
        sweep.is_done();
        assert_eq!((sweep.take_passed(), sweep.next_page()), (Vec::new(), None));
    }
}
