//! What a college has set up: its people.

use crate::domain::roster::Rejection;
use crate::http::problem::{FieldError, Problem, ProblemCode};

/// Why a change of the roster does not fit, as an answer.
pub(super) fn rejected(rejection: Rejection) -> Problem {
    let detail = match rejection {
        Rejection::NoSuchContact | Rejection::NoSuchMethod | Rejection::NoSuchPolicy | Rejection::NoSuchSchedule => {
            return Problem::new(ProblemCode::NotFound);
        }
        Rejection::Invalid(faults) => {
            let errors = faults.into_iter().map(|fault| FieldError::new(fault.field, fault.rule)).collect();
            return Problem::new(ProblemCode::InvalidField).with_errors(errors);
        }
        Rejection::TooSoon(wait) => {
            return Problem::new(ProblemCode::RateLimited)
                .with_detail("too many codes were sent; nothing was sent now")
                .with_retry_after(wait);
        }
        Rejection::Outdated => "it was changed since it was read: read it again",
        Rejection::IdTaken => "the id is taken",
        Rejection::TooMany(why) | Rejection::StillNeeded(why) => why,
        Rejection::AlreadyVerified => "the method is verified",
        Rejection::Inactive => "the contact is not active: nothing is sent to them",
        Rejection::NoCode => "no code waits to be confirmed: it has run out, was tried too often, or none was sent",
    };
    Problem::new(ProblemCode::Conflict).with_detail(detail)
}
