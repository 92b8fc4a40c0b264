//! Two workers and a front share one case on one store, and only one of them calls the store at a time: whose turn it is
//! is drawn. However it falls out, one message is on the phone, and nobody undoes what another did.
//!
//! `INTERLEAVINGS=2000` plays more of them, `INTERLEAVINGS_SEED=7` plays those from another seed on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::ports::Store;
use crisis_relay::simulator::{Fault, FaultRule};
use futures::FutureExt as _;
use serde_json::json;

use crate::common::stage::{Instance, s};
use crate::common::turnstile::{Turnstile, conduct, player};
use crate::common::{COUNSELLOR, COUNSELLOR_KEY, Setting, World};
use crate::firestore::on_emulator;
use crate::memory::Memory;

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What goes on beside the two workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    Nothing,
    Receipts,
    TakesTheCase,
}

/// What one play is about.
#[derive(Debug, Clone)]
struct Scene {
    seed: u64,
    /// Of the first call that a worker makes.
    fault: Option<Fault>,
    front: Front,
}

impl Scene {
    fn of(seed: u64) -> Self {
        let faults = [None, Some(Fault::TooManyRequests { retry_after_s: None }), Some(Fault::DropAfterAccepting)];
        let fronts = [Front::Nothing, Front::Receipts, Front::TakesTheCase];
        let draw = usize::try_from(seed % 9).unwrap();
        Self { seed, fault: faults[draw % 3].clone(), front: fronts[draw / 3] }
    }
}

/// A world whose front and two workers each have a turnstile of their own before the one store.
struct Shared {
    world: World,
    front: Arc<Turnstile>,
    workers: [(Instance, Arc<Turnstile>); 2],
}

impl Shared {
    async fn over(store: Option<Arc<dyn Store>>, before: fn(&Arc<dyn Store>) -> Arc<Turnstile>) -> Self {
        let fronts = Arc::new(parking_lot::Mutex::new(None));
        let kept = Arc::clone(&fronts);
        let setting = Setting::default().with_store(move |sqlite| {
            let inner = store.clone().unwrap_or(sqlite);
            let front = before(&inner);
            *kept.lock() = Some((Arc::clone(&front), inner));
            front
        });
        let mut world = setting.start().await;
        let (front, inner) = fronts.lock().take().unwrap();
        world.work().await;
        let further = async || {
            let turnstile = before(&inner);
            let mut instance = world.further_instance_on(&(Arc::clone(&turnstile) as Arc<dyn Store>)).await;
            // The first round walks over all that waits.
            instance.work().await;
            (instance, turnstile)
        };
        let workers = [further().await, further().await];
        Self { world, front, workers }
    }

    /// Plays one scene to its end, and gives what happened.
    async fn play(&mut self, scene: &Scene) -> Vec<String> {
        let student = format!("student-{}", scene.seed);
        // The front's own call is refused: a second later the message is due again, and in nobody's hand.
        self.world.goes_wrong(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(1) }));
        let reference = self.world.told(&student, 0.93).await;
        self.world.work().await;
        if let Some(fault) = &scene.fault {
            self.world.goes_wrong(FaultRule::once(fault.clone()));
        }
        self.world.clock.advance(s(2));

        let (front, at_the_front) = player("front", &self.front);
        let [(first, first_turnstile), (second, second_turnstile)] = &mut self.workers;
        let (one, first_part) = player("first worker", first_turnstile);
        let (two, second_part) = player("second worker", second_turnstile);
        let (world, deed, asks) = (&self.world, scene.front, reference.as_str());
        let meanwhile = at_the_front.play(async move {
            match deed {
                Front::Nothing => {}
                Front::Receipts => drop(world.sim().step_all().await),
                Front::TakesTheCase => drop(world.sim().reply(COUNSELLOR, &format!("1 {asks}")).await.unwrap()),
            }
        });
        // Longer than a lease.
        let leap = || world.clock.advance(Duration::from_secs(31));
        let (told, (), (), ()) = tokio::join!(
            conduct(vec![front, one, two], scene.seed, 2, leap),
            meanwhile,
            first_part.play(first.work()),
            second_part.play(second.work()),
        );
        // What is left over is done as time passes.
        for _ in 0..12 {
            self.world.clock.advance(s(5));
            for (instance, _) in &mut self.workers {
                instance.work().await;
            }
        }
        let alert = self.world.alert(&reference).await;
        let what = format!("{scene:?}: {told:#?}\n{alert:#}");
        let messages = self.world.on_the_phone(&reference).len();
        let taken = alert["state"] == "acknowledged";
        assert_eq!(taken, deed == Front::TakesTheCase, "who has it? {what}");
        assert!(messages <= 1 && (taken || messages == 1), "{messages} messages on the phone: {what}");
        for delivery in alert["deliveries"].as_array().unwrap() {
            let state = delivery["state"].as_str().unwrap();
            let settled = ["accepted", "sent", "delivered", "read"].contains(&state);
            assert_eq!(settled, messages == 1, "the record is another than the phone: {what}");
            assert!(settled || state == "cancelled", "not settled in a minute: {what}");
        }
        let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
        self.world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
        told
    }

    /// Plays as many as are asked for, and tells how often somebody came too late.
    async fn play_all(mut self, count: u64) -> usize {
        let from = asked("INTERLEAVINGS_SEED").unwrap_or(1);
        let mut different = std::collections::HashSet::new();
        for seed in from..from + asked("INTERLEAVINGS").unwrap_or(count) {
            different.insert(self.play(&Scene::of(seed)).await);
        }
        self.world.holds_its_promises().await;
        assert!(different.len() as u64 > count / 2, "only {} of {count} plays differ", different.len());
        let turnstiles = self.workers.iter().map(|(_, turnstile)| turnstile).chain([&self.front]);
        turnstiles.map(|turnstile| turnstile.outcomes().conflicts).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_one_message_goes_out_however_claims_and_settlements_interleave() {
    let store: Arc<dyn Store> = Arc::new(Memory::default().open(false));
    let late = Shared::over(Some(store), Turnstile::before).await.play_all(150).await;
    assert!(late > 20, "only {late} came too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_one_message_goes_out_however_claims_and_settlements_interleave() {
    let late = Shared::over(None, Turnstile::before).await.play_all(80).await;
    assert!(late > 10, "only {late} came too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_firestore_one_message_goes_out_however_claims_and_settlements_interleave() {
    let Some(store) = on_emulator().await else { return };
    let late = Shared::over(Some(store), Turnstile::before).await.play_all(60).await;
    assert!(late > 10, "only {late} came too late");
}

/// The proof of the proof.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_forgets_to_compare_versions_is_found_out() {
    let store: Arc<dyn Store> = Arc::new(Memory::default().open(false));
    let playing = async { Shared::over(Some(store), Turnstile::that_forgets_versions).await.play_all(150).await };
    let found = AssertUnwindSafe(playing).catch_unwind().await.expect_err("nobody noticed");
    let words = found.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(
        words.contains("messages on the phone") || words.contains("the record") || words.contains("who has it"),
        "{words}"
    );
}
