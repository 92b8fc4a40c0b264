//! Several who work on one store, one call at a time: whose call is next is drawn by a seed, so that what happens between
//! two calls of one is everything that the others can do there, and a seed tells it again.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::SeededEntropy;
use crisis_relay::domain::alert::Alert;
use crisis_relay::domain::consent::ConsentRecord;
use crisis_relay::domain::ids::{AlertId, IdempotencyKey, OrganisationId, ProviderId, SubjectKey};
use crisis_relay::ports::{AlertCommit, Committed, IntakeContext, Store, StoreError, random};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long, by the machine's clock, somebody may take from one call of the store to the next.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call that waits for its turn.
struct Arrival {
    name: &'static str,
    go: oneshot::Sender<()>,
    /// Comes to an end with the call.
    done: oneshot::Receiver<()>,
}

/// A store before which calls wait, while somebody conducts.
pub struct Turnstile {
    store: Arc<dyn Store>,
    queue: Mutex<Option<mpsc::UnboundedSender<Arrival>>>,
    outcomes: Mutex<Outcomes>,
    forgets_versions: bool,
}

/// What came of commits of alerts.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcomes {
    pub committed: usize,
    pub conflicts: usize,
}

impl Turnstile {
    /// An open one.
    pub fn before(store: &Arc<dyn Store>) -> Arc<Self> {
        Self::new(store, false)
    }

    /// One that plants a fault: whatever was stored meanwhile is overwritten, as if no version guarded it.
    pub fn that_forgets_versions(store: &Arc<dyn Store>) -> Arc<Self> {
        Self::new(store, true)
    }

    fn new(store: &Arc<dyn Store>, forgets_versions: bool) -> Arc<Self> {
        let store = Arc::clone(store);
        Arc::new(Self { store, queue: Mutex::default(), outcomes: Mutex::default(), forgets_versions })
    }

    /// What came of its commits so far.
    pub fn outcomes(&self) -> Outcomes {
        *self.outcomes.lock()
    }

    async fn pass<T, F>(&self, name: &'static str, call: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let queue = self.queue.lock().clone();
        let (done, ended) = oneshot::channel();
        if let Some(queue) = queue {
            let (go, turn) = oneshot::channel();
            // Once nobody conducts any more, nobody waits.
            if queue.send(Arrival { name, go, done: ended }).is_ok() {
                let _ = turn.await;
            }
        }
        let answer = call(Arc::clone(&self.store)).await;
        drop(done);
        answer
    }
}

delegate_store! {
    for Turnstile {
        async fn commit_alert(&self, commit: AlertCommit) -> Result<Committed, StoreError> {
            let forgets = self.forgets_versions;
            let answer = self.pass("commit_alert", |store| async move {
                let mut commit = commit;
                if forgets && commit.from_version.is_some()
                    && let Some(stored) = store.alert(commit.alert.id).await?
                {
                    commit.from_version = Some(stored.version);
                    commit.alert.version = stored.version + 1;
                    // The chain would tell: it is left as it stands.
                    commit.alert.audit_head = stored.audit_head;
                    commit.audit.clear();
                }
                store.commit_alert(commit).await
            }).await?;
            let mut outcomes = self.outcomes.lock();
            outcomes.committed += usize::from(answer == Committed::Committed);
            outcomes.conflicts += usize::from(answer == Committed::VersionConflict);
            Ok(answer)
        }

        fn is_exclusive(&self) -> bool {
            false
        }

        async fn close(&self) {
            self.store.close().await;
        }
    }
    and
    alert(id: AlertId) -> Option<Alert>;
    intake_context(organisation: &OrganisationId, subject: SubjectKey, key: Option<IdempotencyKey>) -> IntakeContext;
    alert_of_message(id: &ProviderId) -> Option<Alert>;
    due_alerts(until: Timestamp, limit: usize) -> Vec<AlertId>;
    consent(organisation: &OrganisationId, subject: SubjectKey) -> Option<ConsentRecord>;
}

/// One of those who work on the store.
pub struct Player {
    name: &'static str,
    queue: mpsc::UnboundedReceiver<Arrival>,
    begin: CancellationToken,
    ended: CancellationToken,
}

/// What a player is given: it begins at its first turn.
pub struct Part {
    begin: CancellationToken,
    ended: CancellationToken,
}

impl Part {
    /// Plays it.
    pub async fn play<T>(self, work: impl Future<Output = T>) -> T {
        let _ended = self.ended.drop_guard();
        self.begin.cancelled().await;
        work.await
    }
}

/// Closes a turnstile: from now on its calls wait for their turn.
pub fn player(name: &'static str, turnstile: &Turnstile) -> (Player, Part) {
    let (sender, queue) = mpsc::unbounded_channel();
    *turnstile.queue.lock() = Some(sender);
    let (begin, ended) = (CancellationToken::new(), CancellationToken::new());
    let part = Part { begin: begin.clone(), ended: ended.clone() };
    (Player { name, queue, begin, ended }, part)
}

/// Draws whose call is next until all have ended; gives who called what, in that order. At a few of the turns `leap`
/// happens instead. When it ends, all turnstiles are open.
pub async fn conduct(mut players: Vec<Player>, seed: u64, leaps_max: usize, leap: impl Fn()) -> Vec<String> {
    let chance = SeededEntropy::new(seed);
    let below = |bound: usize| usize::try_from(u64::from_le_bytes(random(&chance)) % bound as u64).unwrap();
    let mut leaps = below(leaps_max + 1);
    let mut told = Vec::new();
    loop {
        players.retain(|player| !player.ended.is_cancelled());
        if players.is_empty() {
            return told;
        }
        if leaps > 0 && below(8) == 0 {
            leaps -= 1;
            leap();
            told.push("time leaps".to_owned());
            continue;
        }
        let drawn = below(players.len());
        let player = &mut players[drawn];
        player.begin.cancel();
        let arrived = async {
            tokio::select! {
                biased;
                arrival = player.queue.recv() => arrival,
                () = player.ended.cancelled() => None,
            }
        };
        let Ok(arrival) = tokio::time::timeout(PATIENCE, arrived).await else {
            panic!("{} neither calls nor ends, after {told:?}", player.name);
        };
        if let Some(Arrival { name, go, done }) = arrival {
            told.push(format!("{}: {name}", player.name));
            let _ = go.send(());
            let _ = done.await;
        }
    }
}
