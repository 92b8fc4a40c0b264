//! Receipts come late, twice and in any order. What they come to is the same.

use crisis_relay::domain::alert::Input;
use crisis_relay::domain::delivery::DeliveryState;
use crisis_relay::domain::ids::{AttemptNo, DeliveryNo};
use crisis_relay::domain::policy::Target;
use crisis_relay::domain::provider::{MessageStatus, ProviderFault, Receipt, SendOutcome, UnknownCause};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use crate::cases;
use crate::driver::Driver;
use crate::steps::{STATUSES, fault, provider_id};
use crate::world::{Granted, World, contact_id, reachable_world, score};

const DELIVERY: DeliveryNo = DeliveryNo(1);
const ATTEMPT: AttemptNo = AttemptNo(1);

/// Everything that Twilio says of one message, in the order in which it happens: some of the way, and at most one
/// failure.
fn said() -> impl Strategy<Value = Vec<(MessageStatus, Option<ProviderFault>)>> {
    let way = subsequence(STATUSES[..7].to_vec(), 0..=7);
    let failure = prop::option::of((select(STATUSES[7..].to_vec()), prop::option::of(fault())));
    (way, failure).prop_map(|(way, failure)| way.into_iter().map(|status| (status, None)).chain(failure).collect())
}

/// How the create call was answered, if it was.
fn answer() -> impl Strategy<Value = Option<SendOutcome>> {
    let accepted =
        SendOutcome::Accepted { provider_id: provider_id(DELIVERY, ATTEMPT, false), status: MessageStatus::Queued };
    let unknown = SendOutcome::Unknown { cause: UnknownCause::TimeOut, retry_after: None };
    select(vec![None, Some(accepted), Some(unknown)])
}

/// The same things, in another order, and some of them again.
fn mixed(inputs: &[Input], order: &[Index]) -> Vec<Input> {
    let mut mixed = inputs.to_vec();
    for (place, index) in order.iter().enumerate().take(mixed.len()) {
        let other = index.index(mixed.len());
        mixed.swap(place, other);
    }
    if inputs.is_empty() {
        return mixed;
    }
    let repeated: Vec<Input> = order.iter().skip(inputs.len()).map(|index| index.get(inputs).clone()).collect();
    for (again, index) in repeated.into_iter().zip(order) {
        // Only receipts are repeated: a call is answered once.
        if let Input::Received { .. } = again {
            mixed.insert(index.index(mixed.len() + 1), again);
        }
    }
    mixed
}

/// Where an attempt and its delivery end.
fn end(world: &World, inputs: &[Input]) -> Result<(Option<MessageStatus>, DeliveryState), TestCaseError> {
    let (mut driver, _) = Driver::open(world, Some(score(0.8)), Granted::Override, true)?;
    for input in inputs {
        driver.step(input, false)?;
    }
    let delivery = driver.alert.delivery(DELIVERY).unwrap();
    Ok((delivery.attempt(ATTEMPT).unwrap().status, delivery.state.clone()))
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn the_order_of_receipts_makes_no_difference(
        mut world in reachable_world(),
        said in said(),
        answer in answer(),
        order in vec(any::<Index>(), 12..24),
    ) {
        // Somebody must be told at the first stage, or there is no attempt.
        let mut policy = (*world.policy).clone();
        policy.steps[0].targets = vec![Target::Contact(contact_id(0))];
        world.policy = policy.into();
        let receipt = |(status, fault)| Input::Received {
            delivery: DELIVERY,
            attempt: ATTEMPT,
            receipt: Receipt { provider_id: provider_id(DELIVERY, ATTEMPT, false), status, fault },
        };
        let settled = |outcome| Input::Settled { delivery: DELIVERY, attempt: ATTEMPT, outcome };
        let inputs: Vec<Input> = answer.map(settled).into_iter().chain(said.into_iter().map(receipt)).collect();
        let mixed = mixed(&inputs, &order);
        prop_assert_eq!(end(&world, &inputs)?, end(&world, &mixed)?, "{:?}", mixed);
    }
}
