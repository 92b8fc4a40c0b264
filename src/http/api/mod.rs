//! The API: `/api/v1/…`. Handlers are thin: parse, ask the service, answer.

mod alerts;
mod contacts;
mod drills;
mod emergency_contacts;
mod events;
mod fields;
mod policies;
mod preferences;
mod schedules;
mod settings;
mod views;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use tokio_util::task::AbortOnDropHandle;
use utoipa_axum::router::OpenApiRouter;

use super::problem::{FieldError, Problem, ProblemCode};
use super::state::AppState;
use crate::domain::alert::Rejection;
use crate::service::ServiceError;

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    let for_people = alerts::routes()
        .merge(contacts::routes())
        .merge(preferences::routes())
        .merge(drills::routes())
        .merge(emergency_contacts::routes())
        .merge(policies::routes())
        .merge(schedules::routes())
        .merge(settings::routes())
        .route_layer(from_fn(apart));
    OpenApiRouter::new().merge(events::routes()).merge(for_people)
}

/// Handles a request in a task of its own: where a read is caught in a disk that hangs, the time-out around this goes by all
/// the same. Events and webhooks, of which there are many, have such a task already.
///
/// Whoever takes a body here must begin its work with [`to_its_end`]: to read a body wakes the connection's task, and where
/// the next thing is a read that hangs, that task hangs with it, and its time-out too.
async fn apart(request: Request, next: Next) -> Response {
    let handling = tracing::Instrument::instrument(next.run(request), tracing::Span::current());
    match AbortOnDropHandle::new(tokio::spawn(handling)).await {
        Ok(response) => response,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending.
            Err(_) => Problem::new(ProblemCode::Unavailable).into_response(),
        },
    }
}

/// Does `work` in a task of its own: a caller who hangs up, or a time-out, does not stop half-way what was begun, between
/// the commit and the hand-over of what it gave to do.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
) -> Result<T, Problem> {
    // A failure is made an answer, and thereby logged, inside the task: who has hung up takes no answer.
    let work = async move { work.await.map_err(Problem::from) };
    let done = tokio::spawn(tracing::Instrument::instrument(work, tracing::Span::current())).await;
    done.map_err(|_| Problem::new(ProblemCode::Internal))?
}

impl From<ServiceError> for Problem {
    /// The one place that turns the service's errors into answers. Internal text goes to the log, here, and no further.
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::NotFound => Self::new(ProblemCode::NotFound),
            ServiceError::Rejected(rejection) => rejected(rejection),
            ServiceError::Roster(rejection) => contacts::rejected(rejection),
            ServiceError::CannotVerify(why) => Self::new(ProblemCode::Conflict).with_detail(why),
            ServiceError::DrillRuns(reference) => Self::new(ProblemCode::Conflict)
                .with_detail(format!("the drill {reference} is running: answer or close it first")),
            ServiceError::NoDesk => Self::new(ProblemCode::DeskMissing)
                .with_detail("there is no number that they could be asked to call: set CARE_DESK_PHONE"),
            ServiceError::WhichEmergencyContact => Self::of_field(
                ProblemCode::MissingField,
                FieldError::new("contact", "must be given: the student has named several"),
            ),
            ServiceError::IdempotencyKeyReused => Self::of_field(
                ProblemCode::IdempotencyKeyReused,
                FieldError::new("Idempotency-Key", "must be new for a new body"),
            ),
            ServiceError::Forbidden(why) => Self::new(ProblemCode::Forbidden).with_detail(why),
            ServiceError::UnknownOrganisation => {
                Self::new(ProblemCode::Forbidden).with_detail("the organisation is not set up here")
            }
            ServiceError::Busy => Self::new(ProblemCode::Unavailable)
                .with_detail("too many changes at once; nothing was changed")
                .with_retry_after(std::time::Duration::from_secs(1)),
            ServiceError::TooLate => Self::new(ProblemCode::TimeOut)
                .with_detail("the service was too slow; nothing was changed")
                .with_retry_after(std::time::Duration::from_secs(1)),
            ServiceError::Store(error) => {
                tracing::error!(%error, "the store failed a request");
                Self::new(ProblemCode::Unavailable)
                    .with_detail("the store is not available; try again with the same Idempotency-Key")
                    .with_retry_after(std::time::Duration::from_secs(1))
            }
            ServiceError::CannotSeal(field) => Self::of_field(
                ProblemCode::Conflict,
                FieldError::new(field, "must be left out: the student's data key is gone or does not open"),
            ),
            ServiceError::Sealed(error) => {
                tracing::error!(%error, "sealed data failed a request");
                Self::new(ProblemCode::Conflict).with_detail("the sealed data of this case cannot be opened")
            }
        }
    }
}

fn rejected(rejection: Rejection) -> Problem {
    let detail = match rejection {
        Rejection::NoSuchDelivery => return Problem::new(ProblemCode::NotFound),
        Rejection::WrongOutcome => {
            return Problem::of_field(
                ProblemCode::InvalidField,
                FieldError::new("outcome", "must be drill for a drill, and nothing else may be"),
            );
        }
        Rejection::NoSuchEmergencyContact => return Problem::new(ProblemCode::EmergencyContactUnknown),
        Rejection::EmergencyContactUnverified => return Problem::new(ProblemCode::EmergencyContactUnverified),
        Rejection::DrillStaysInside => return Problem::new(ProblemCode::DrillStaysInside),
        Rejection::OutsideTheTeam => "an emergency contact does not work on the case",
        Rejection::NotAcknowledged => "nobody has taken the alert",
        Rejection::RepliesFull => "no more replies are kept for this alert",
        Rejection::NobodyElse => "there is nobody else to hand it on to",
        Rejection::AlreadyResolved => "the alert is resolved",
        Rejection::AlreadyAcknowledged => "the alert is already acknowledged",
        Rejection::IsWithheld => "the alert is withheld: escalate it with an override, or resolve it",
        Rejection::NotWithheld => "the alert is not withheld: people are being told, or have been",
    };
    Problem::new(ProblemCode::Conflict).with_detail(detail)
}

/// A text from a caller: its length in characters, and no control characters but line breaks and tabs.
fn check_text(errors: &mut Vec<FieldError>, field: &'static str, text: &str, chars_max: usize) {
    if text.trim().is_empty() {
        errors.push(FieldError::new(field, "must not be empty"));
    }
    if text.chars().count() > chars_max {
        errors.push(FieldError::new(field, format!("must have at most {chars_max} characters")));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        errors.push(FieldError::new(field, "must not have control characters"));
    }
}

/// The longest user id, in characters.
const USER_ID_CHARS_MAX: usize = 128;

/// A student's id as the backend names them: 1 to 128 characters, none of them white space at the ends or a control.
fn check_user_id(errors: &mut Vec<FieldError>, user_id: &str) {
    check_text(errors, "user_id", user_id, USER_ID_CHARS_MAX);
    if user_id.trim() != user_id || user_id.chars().any(char::is_control) {
        errors.push(FieldError::new("user_id", "must not begin or end with white space, nor have line breaks"));
    }
}
