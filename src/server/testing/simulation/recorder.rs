//! Reads what the server writes to every connection, and passes it on to the oracles.

use super::client_state::CONFIRMATIONS;
use super::presence_oracle::View;
use super::scheduler::Simulation;
use super::sim_link::Received;
use crate::ids::UserId;
use crate::testing::fixtures::GRACE_US;

impl Simulation {
    /// Reads what was written to every connection since the last call.
    pub(super) fn note_output(&mut self) {
        self.oracle.now_us = self.at_us();
        for at in 0..self.active.len() {
            let number = self.active[at];
            for (began, heard) in self.links[number].note_written(&mut self.stamp) {
                self.note_received(number, began, &heard);
            }
            let link = &mut self.links[number];
            if !link.closed && link.client.is_closed() {
                link.closed = true;
                let is_early = self.server.workers.fixtures.metrics.closed_early.value() > 0;
                let is_over = link.kicked_us.is_none_or(|at_us| self.oracle.now_us >= at_us + GRACE_US);
                assert!(is_early || is_over, "the fd of #{number} is closed within the grace");
                self.note_torn(number);
            }
        }
    }

    fn note_received(&mut self, number: usize, began: u64, heard: &Received) {
        self.tell(|| format!("  to #{number}: {}", super::trace::heard(heard)));
        match heard {
            Received::Welcome { user, kept, friends, .. } => {
                let link = &mut self.links[number];
                link.user = Some(*user);
                link.view = View::at_login(friends, link.asked_us);
                let token = link.asked.pop_front().flatten();
                if let Some(token) = token
                    && link.can_speak()
                {
                    assert!(self.used_tokens.insert(token), "a token has logged in twice");
                }
                for chat in kept {
                    self.oracle.written(*user, chat, began);
                }
            }
            Received::Refused => drop(self.links[number].asked.pop_front()),
            Received::Chat(chat) => {
                let user = self.links[number].user.expect("a chat comes to somebody who is logged in");
                self.oracle.written(user, chat, began);
            }
            Received::Answer { seq, errno, full } if *seq < CONFIRMATIONS => {
                self.oracle.answered(*seq, *errno, full);
            }
            Received::Answer { seq, errno, .. } => {
                let (user, upto) = self.confirmations[(*seq - CONFIRMATIONS) as usize];
                if *errno == 0 {
                    self.oracle.confirmed(user, upto, began);
                }
            }
            Received::Complaint => self.links[number].complaints += 1,
            Received::Goodbye => self.links[number].is_sent_away = true,
            Received::Presence { of, online, epoch } => {
                let now_us = self.at_us();
                self.presence.tell(&mut self.links[number].view, *of, *online, *epoch, now_us);
            }
            Received::Ping | Received::Other => {}
        }
    }

    /// Nothing more is written to a connection: what is torn is not completed.
    pub(super) fn note_torn(&mut self, number: usize) {
        let link = &self.links[number];
        if link.partial().is_empty() {
            return;
        }
        let users: Vec<UserId> = link.user.into_iter().chain(link.asked_for).collect();
        for user in users {
            self.oracle.partial(user, self.links[number].partial());
        }
    }
}
