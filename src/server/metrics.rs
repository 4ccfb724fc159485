//! Counters, each declared once with what it counts. Any thread adds, `linger stats` reads.
//!
//! Nothing is decided by a counter, so all of it is relaxed.

use crate::channel::Reason;
use crate::sync::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident;)*) => {
        /// What the server has counted since it started.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: Counter,)*
            /// Ends by reason.
            pub left: ByReason,
            /// Bytes of the database's log at the latest look.
            pub wal_bytes: Gauge,
        }

        impl Metrics {
            /// Every counter with its name and description, in order of declaration; then one for each reason.
            pub fn counters(&self) -> Vec<(String, &'static str, u64)> {
                let mut all =
                    vec![$((stringify!($name).to_owned(), concat!($($doc),+).trim_ascii(), self.$name.value()),)*];
                all.extend(self.left.counters());
                all.push(("wal_bytes".to_owned(), "Bytes of the database's log.", self.wal_bytes.value()));
                all
            }
        }
    };
}

/// How often somebody left with each [`Reason`]; in `linger stats` as `left_` and the reason's word.
///
/// An end is counted once: a channel that leaves, with its session or without; a session that ends while its channel
/// stays; a connection that is turned away before it has a channel; a session that the last run left behind.
#[derive(Debug)]
pub struct ByReason([Counter; Reason::ALL.len()]);

impl ByReason {
    /// Counts ends.
    pub fn add(&self, reason: Reason, more: u64) {
        self.0[reason as usize].add(more);
    }

    /// Reads one of them.
    pub fn value(&self, reason: Reason) -> u64 {
        self.0[reason as usize].value()
    }

    fn counters(&self) -> impl Iterator<Item = (String, &'static str, u64)> {
        let named = |&reason: &Reason| {
            (format!("left_{}", reason.word()), "Ends with this reason.", self.value(reason))
        };
        Reason::ALL.iter().map(named)
    }
}

impl Default for ByReason {
    fn default() -> Self {
        ByReason(std::array::from_fn(|_| Counter::default()))
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Says what it is now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// Counts a channel that has left.
    pub fn note_departure(&self, reason: Reason) {
        self.departures.add(1);
        self.left.add(reason, 1);
    }
}

/// Cache lines that each counter has. Threads that add at the same time to one line wait for each other.
#[cfg(not(loom))]
const LINES: usize = 8;
#[cfg(loom)]
const LINES: usize = 1;

/// A number that only rises: the sum of its lines, of which each thread has its own while there are enough.
#[derive(Debug, Default)]
pub struct Counter([Line; LINES]);

#[derive(Debug, Default)]
#[cfg_attr(not(loom), repr(align(64)))]
struct Line(AtomicU64);

/// Threads that have counted so far. Not of `crate::sync`: no model has anything to say of it.
static THREADS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

std::thread_local! {
    /// Which line is this thread's.
    static LINE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % LINES;
}

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        if more > 0 {
            self.0[LINE.with(|line| *line)].0.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Reads it.
    pub fn value(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).sum()
    }
}

counters! {
    /// Connections accepted.
    accepted;
    /// Times a worker stopped accepting because names or fds had run out.
    accept_pauses;
    /// Accept calls that failed.
    accept_errors;
    /// Bytes read from clients.
    bytes_in;
    /// Bytes written to clients.
    bytes_out;
    /// Whole requests read from clients.
    requests;
    /// Requests answered with an error.
    request_errors;
    /// Users and blocks of addresses that were banned.
    bans;
    /// Logins that a ban kept out.
    logins_banned;
    /// Chats handed straight from the sender's worker to the receiver's.
    chats_direct;
    /// Chats that went through main.
    chats_via_main;
    /// Chats handed to the kernel.
    chats_delivered;
    /// Chats among them of which the kernel never took the rest.
    chats_lost;
    /// Chats put into a box.
    chats_kept;
    /// Chats that came back unsent from a channel that left, and were put into the box.
    chats_saved;
    /// Chats removed from a box because they had lain there too long.
    chats_expired;
    /// Sessions begun.
    logins;
    /// Logins refused for a wrong id, name, password or token, by JSON or by lines.
    logins_failed;
    /// Passwords verified from the short-lived cache.
    logins_cached;
    /// Sessions begun by a token, without a password.
    logins_resumed;
    /// Users registered.
    registrations;
    /// Registrations and new guests refused because their channel or address has had too many, or is banned.
    registrations_refused;
    /// Events of friends who came or went, handed out to be written.
    presence_told;
    /// Ends of sessions that no friend was told of, because the user was back soon.
    presence_spared;
    /// Channels that left.
    departures;
    /// Sessions that ended.
    sessions_ended;
    /// Channels that an admin sent away.
    kicks;
    /// Fds closed by main.
    closed;
    /// Fds closed before their grace was over, because fds ran short.
    closed_early;
    /// Batches that main has drained from the offline queue.
    drains;
    /// Entries in those batches.
    drained;
    /// Transactions committed.
    commits;
    /// Transactions that failed.
    commit_failures;
    /// Writes that the database refused for so long that they were given up; the log has each.
    writes_set_aside;
    /// Differences between what main knows and the table, the registry, the workers or the rows, found and repaired.
    reconciled;
    /// Times that all of it was compared.
    reconcile_rounds;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own_and_a_description() {
        let all = Metrics::default().counters();
        let mut names: Vec<_> = all.iter().map(|c| &c.0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|c| c.1.ends_with('.')));
    }

    #[test]
    fn every_reason_is_counted_under_its_own_word_also_where_nobody_left_with_it() {
        let metrics = Metrics::default();
        for (times, &reason) in Reason::ALL.iter().enumerate() {
            metrics.left.add(reason, times as u64);
        }
        let all = metrics.counters();
        for (times, reason) in Reason::ALL.iter().enumerate() {
            let name = format!("left_{}", reason.word());
            assert!(all.iter().any(|c| (&c.0, c.2) == (&name, times as u64)), "{name}");
        }
    }

    #[test]
    fn a_counter_is_the_sum_of_what_all_threads_have_added() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * LINES {
                scope.spawn(|| counter.add(3));
            }
        });
        assert_eq!(counter.value(), 6 * LINES as u64);
    }

    #[test]
    fn a_channel_that_left_is_a_departure_with_its_reason() {
        let metrics = Metrics::default();
        metrics.note_departure(Reason::Kicked);
        assert_eq!((metrics.departures.value(), metrics.left.value(Reason::Kicked)), (1, 1));
        assert_eq!(metrics.left.value(Reason::Banned), 0);
    }
}
