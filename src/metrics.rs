//! Counters, each declared once with what it counts. Any thread adds, `linger stats` reads.
//!
//! Nothing is decided by a counter, so all of it is relaxed.

use crate::sync::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident;)*) => {
        /// What the server has counted since it started.
        #[derive(Debug, Default)]
        pub struct Metrics { $($(#[doc = $doc])+ pub $name: Counter,)* }

        impl Metrics {
            /// Every counter with its name and description, in order of declaration.
            pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name.value()),)*]
            }
        }
    };
}

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        if more > 0 {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Reads it.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
    /// Chats put into a box.
    chats_kept;
    /// Chats that came back unsent from a channel that left, and were put into the box.
    chats_saved;
    /// Sessions begun.
    logins;
    /// Logins refused for a wrong id, name or password.
    logins_failed;
    /// Passwords verified from the short-lived cache.
    logins_cached;
    /// Users registered.
    registrations;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own_and_a_description() {
        let all = Metrics::default().counters();
        let mut names: Vec<_> = all.iter().map(|c| c.0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|c| c.1.ends_with('.')));
    }
}
