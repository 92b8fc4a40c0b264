//! A gate between the service and its store: it counts the calls, and lets each pass, fail, hang or panic, or stops the
//! world there.

use std::sync::Arc;

use crisis_relay::domain::alert::Alert;
use crisis_relay::domain::consent::ConsentRecord;
use crisis_relay::domain::ids::{AlertId, IdempotencyKey, OrganisationId, ProviderId, SubjectKey};
use crisis_relay::ports::{AlertCommit, Committed, IntakeContext, Store, StoreError};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::Setting;

/// One call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its number, from 1, since the gate was set.
    pub no: usize,
    /// The method.
    pub name: &'static str,
    /// The alert that is loaded or saved.
    pub alert: Option<AlertId>,
}

impl Call {
    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        ["commit", "keep", "forget", "insert", "append", "probe"].iter().any(|word| self.name.starts_with(word))
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Unavailable,
    Unknown,
    Corrupt,
}

impl Fault {
    fn error(self) -> StoreError {
        let what = "the story wants it".to_owned();
        match self {
            Self::Unavailable => StoreError::Unavailable { what },
            Self::Unknown => StoreError::Unknown { what },
            Self::Corrupt => StoreError::Corrupt { what },
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone)]
pub enum Fate {
    Pass,
    /// It fails, and took no effect.
    Fail(Fault),
    /// It takes effect, and fails all the same.
    PassAndFail(Fault),
    /// The world stops before it takes effect.
    StopBefore,
    /// The world stops once it has taken effect.
    StopAfter,
    /// The caller's task ends by a panic.
    Panic,
    /// The same, with these words.
    PanicSaying(&'static str),
    /// It waits for a permit, then passes.
    Wait(Arc<Semaphore>),
    /// It takes effect, and is answered only with a permit.
    PassAndWait(Arc<Semaphore>),
    /// Nobody can tell what came of it, and it has not arrived yet: it does with [`Gate::arrive`]. An alert's commit only.
    Late,
}

type Plan = Box<dyn FnMut(Call) -> Fate + Send>;

/// The gate, as the story holds it. It outlives the service.
pub struct Gate {
    plan: Mutex<Plan>,
    calls: Mutex<Vec<Call>>,
    stopped: Notify,
    exclusive: bool,
    /// Commits on their way, and where to.
    late: Mutex<Vec<(Arc<dyn Store>, AlertCommit)>>,
}

impl Gate {
    /// A gate that lets everything pass.
    pub fn new() -> Arc<Self> {
        Self::with(true)
    }

    /// The same, over a store that others share.
    pub fn shared() -> Arc<Self> {
        Self::with(false)
    }

    fn with(exclusive: bool) -> Arc<Self> {
        let plan: Plan = Box::new(|_| Fate::Pass);
        Arc::new(Self {
            plan: Mutex::new(plan),
            calls: Mutex::default(),
            stopped: Notify::new(),
            exclusive,
            late: Mutex::default(),
        })
    }

    /// Puts itself before a store.
    pub fn before(self: &Arc<Self>, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Gated { gate: Arc::clone(self), store: Mutex::new(Some(store)) })
    }

    /// From now on calls are counted from 1, and `plan` says what becomes of each.
    pub fn set(&self, plan: impl FnMut(Call) -> Fate + Send + 'static) {
        *self.plan.lock() = Box::new(plan);
        self.calls.lock().clear();
    }

    /// Lets everything pass again.
    pub fn open(&self) {
        self.set(|_| Fate::Pass);
    }

    /// Strikes the call with this number only.
    pub fn strike(&self, no: usize, fate: Fate) {
        self.set(move |call| if call.no == no { fate.clone() } else { Fate::Pass });
    }

    /// Strikes every call of this name.
    pub fn strike_named(&self, name: &'static str, fate: Fate) {
        self.set(move |call| if call.name == name { fate.clone() } else { Fate::Pass });
    }

    /// Strikes the first call of this name only.
    pub fn strike_first(&self, name: &'static str, fate: Fate) {
        let mut left = Some(fate);
        self.set(move |call| if call.name == name { left.take().unwrap_or(Fate::Pass) } else { Fate::Pass });
    }

    /// The calls since the gate was set.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    /// How many calls of this name there were since the gate was set.
    pub fn count(&self, name: &str) -> usize {
        self.calls.lock().iter().filter(|call| call.name == name).count()
    }

    /// Lets `work` go on to its end, or to where the world stops: then `None`.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopped.notified() => None,
            done = work => Some(done),
        }
    }

    /// What was late arrives now; gives what the store made of each.
    pub async fn arrive(&self) -> Vec<Committed> {
        let late = std::mem::take(&mut *self.late.lock());
        let mut came_to = Vec::new();
        for (store, commit) in late {
            came_to.push(store.commit_alert(commit).await.unwrap());
        }
        came_to
    }

    fn draw(&self, name: &'static str, alert: Option<AlertId>) -> Fate {
        let call = {
            let mut calls = self.calls.lock();
            let call = Call { no: calls.len() + 1, name, alert };
            calls.push(call);
            call
        };
        (self.plan.lock())(call)
    }
}

impl Setting {
    /// Puts a gate before the store.
    pub fn with_gate(self, gate: &Arc<Gate>) -> Self {
        let gate = Arc::clone(gate);
        self.with_store(move |store| gate.before(store))
    }
}

/// A store behind a gate. When the world stops, the store is let go of, so that the file is free for the next life; for
/// whoever calls then, time stands still.
struct Gated {
    gate: Arc<Gate>,
    store: Mutex<Option<Arc<dyn Store>>>,
}

impl Gated {
    async fn stop<T>(&self) -> T {
        self.store.lock().take();
        self.gate.stopped.notify_one();
        std::future::pending().await
    }

    async fn pass<T, F>(&self, name: &'static str, call: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.pass_of(name, None, call).await
    }

    async fn pass_of<T, F>(
        &self,
        name: &'static str,
        alert: Option<AlertId>,
        call: impl FnOnce(Arc<dyn Store>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let Some(store) = self.store.lock().clone() else { return std::future::pending().await };
        let fate = self.gate.draw(name, alert);
        self.meet(fate, name, store, call).await
    }

    async fn meet<T, F>(
        &self,
        fate: Fate,
        name: &'static str,
        store: Arc<dyn Store>,
        call: impl FnOnce(Arc<dyn Store>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        match fate {
            Fate::Pass => call(store).await,
            Fate::Fail(fault) => Err(fault.error()),
            Fate::PassAndFail(fault) => {
                call(store).await?;
                Err(fault.error())
            }
            Fate::StopBefore => {
                drop(store);
                self.stop().await
            }
            Fate::StopAfter => {
                call(store).await?;
                self.stop().await
            }
            Fate::Panic => panic!("the story wants {name} to panic"),
            Fate::PanicSaying(words) => panic!("{words}"),
            Fate::Wait(permits) => {
                permits.acquire().await.unwrap().forget();
                call(store).await
            }
            Fate::PassAndWait(permits) => {
                let answer = call(store).await;
                permits.acquire().await.unwrap().forget();
                answer
            }
            Fate::Late => panic!("{name} cannot come late"),
        }
    }
}

delegate_store! {
    for Gated {
        async fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
            self.pass_of("alert", Some(id), |store| async move { store.alert(id).await }).await
        }

        async fn commit_alert(&self, commit: AlertCommit) -> Result<Committed, StoreError> {
            let Some(store) = self.store.lock().clone() else { return std::future::pending().await };
            let fate = self.gate.draw("commit_alert", Some(commit.alert.id));
            if matches!(fate, Fate::Late) {
                self.gate.late.lock().push((store, commit));
                return Err(Fault::Unknown.error());
            }
            self.meet(fate, "commit_alert", store, |store| async move { store.commit_alert(commit).await }).await
        }

        fn is_exclusive(&self) -> bool {
            self.gate.exclusive && self.store.lock().as_ref().is_some_and(|store| store.is_exclusive())
        }

        async fn close(&self) {
            let store = self.store.lock().clone();
            if let Some(store) = store {
                store.close().await;
            }
        }
    }
    and
    intake_context(organisation: &OrganisationId, subject: SubjectKey, key: Option<IdempotencyKey>) -> IntakeContext;
    alert_of_message(id: &ProviderId) -> Option<Alert>;
    due_alerts(until: Timestamp, limit: usize) -> Vec<AlertId>;
    consent(organisation: &OrganisationId, subject: SubjectKey) -> Option<ConsentRecord>;
}
