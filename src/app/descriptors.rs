//! How many connections the process's limit of open files leaves room for.
//!
//! Callers must not be able to take the descriptors that calls to Twilio and the store need: an accepted alert would wait
//! for as long as they like. So connections are bounded below the limit, whatever the configuration allows.

use crate::config::Config;

/// For what comes and goes: an identity provider's keys, a name to be resolved, a connection on its way out.
const SPARE: usize = 8;

/// `http.max_connections`, or fewer where the limit of open files does not leave room for so many beside what is open
/// already, the store's logs and the calls to Twilio. Asked once everything that stays open is.
pub(super) fn connections_max(config: &Config) -> usize {
    let configured = config.http.max_connections;
    let Some((allowed, open)) = allowed_and_open() else { return configured };
    let room = room(allowed, open + opened_later(config.store.readers), calls(config.twilio.max_concurrency));
    if room >= configured {
        return configured;
    }
    tracing::warn!(
        open_files_allowed = allowed,
        connections = room,
        configured,
        "the limit of open files leaves room for fewer connections than http.max_connections: raise it, or set fewer"
    );
    room
}

/// The most that the store opens once it is used, and keeps: each connection beside the writer's opens the write-ahead log
/// when it first reads. These are the one for checkpoints, and the readers, which may have read already.
const fn opened_later(readers: usize) -> usize {
    readers + 1
}

/// Messages and questions have as many places each.
const fn calls(max_concurrency: usize) -> usize {
    max_concurrency.saturating_mul(2)
}

/// What a limit leaves for connections: calls to Twilio get what they may need, but no more than half.
fn room(allowed: usize, open: usize, calls: usize) -> usize {
    let free = allowed.saturating_sub(open + SPARE);
    free.saturating_sub(calls.min(free / 2)).max(1)
}

/// How many files this process may have open, and how many are. `None` where the system does not tell in this way, or sets
/// no limit.
fn allowed_and_open() -> Option<(usize, usize)> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let allowed = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let allowed = allowed.split_whitespace().next()?.parse().ok()?;
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some((allowed, open))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_never_get_the_descriptors_that_calls_to_twilio_need() {
        for (allowed, open, calls, left) in [
            // As most systems are set up: the calls get all that they may need.
            (1024, 40, 64, 1024 - 40 - SPARE - 64),
            (1 << 20, 40, 64, (1 << 20) - 40 - SPARE - 64),
            // So few that both sides must share them.
            (64, 26, 64, 15),
            // None at all: one caller is better than nobody.
            (30, 30, 64, 1),
            (usize::MAX, 0, 0, usize::MAX - SPARE),
        ] {
            assert_eq!(room(allowed, open, calls), left, "{allowed} allowed, {open} open, {calls} calls");
        }
    }

    /// How many descriptors lead into a folder.
    #[cfg(target_os = "linux")]
    fn open_in(folder: &std::path::Path) -> usize {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten().flat_map(|fd| std::fs::read_link(fd.path()));
        links.filter(|link| link.starts_with(folder)).count()
    }

    #[tokio::test(flavor = "multi_thread")]
    #[cfg(target_os = "linux")]
    async fn what_the_store_opens_once_it_is_used_is_counted_before() {
        use crate::ports::Store as _;
        const READERS: usize = 6;
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        let settings = crate::store::sqlite::SqliteSettings {
            path: place.join("crisis-relay.db"),
            readers: READERS,
            group_commit_max: 1,
            write_queue_max: 100,
            busy_timeout: std::time::Duration::from_secs(5),
        };
        let store = crate::store::sqlite::SqliteStore::open(&settings).unwrap();
        let before = open_in(&place);
        let used = || open_in(&place) - before;
        // Enough commits for a checkpoint, and so many reads at once that every connection gets to read some time.
        for round in 0..10_000_u32 {
            let now = jiff::Timestamp::from_second(i64::from(round)).unwrap();
            store.probe(now).await.unwrap();
            futures::future::join_all((0..4 * READERS).map(|_| store.stats())).await;
            if used() > 0 && round > 1_000 {
                break;
            }
        }
        let used = used();
        assert!(
            (1..=opened_later(READERS)).contains(&used),
            "{used} were opened, and {} counted",
            opened_later(READERS)
        );
        store.close().await;
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_limit_and_what_is_open_are_read_where_linux_tells_them() {
        let (allowed, open) = allowed_and_open().expect("Linux tells, and a test runs under a limit");
        assert!(allowed > open && open > 2, "{open} of {allowed}");
    }
}
