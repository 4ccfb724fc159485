//! What the server writes to every connection, and what that means to those who keep account of it.

use super::line::Heard;
use super::sight::View;
use super::world::World;
use crate::ids::UserId;
use crate::testing::commons::GRACE_US;

/// The `seq` of the first confirmation; those of chats are below.
pub(super) const CONFIRMATIONS: i64 = 1_000_000_000;

impl World {
    /// Hears what has been written to every connection.
    pub(super) fn note_output(&mut self) {
        self.shadow.now_us = self.at_us();
        for at in 0..self.active.len() {
            let number = self.active[at];
            for (began, heard) in self.lines[number].note_written(&mut self.stamp) {
                self.note_heard(number, began, &heard);
            }
            let line = &mut self.lines[number];
            if !line.closed && line.client.is_closed() {
                line.closed = true;
                let is_early = self.server.bench.commons.metrics.closed_early.value() > 0;
                let is_over = line.kicked_us.is_none_or(|at_us| self.shadow.now_us >= at_us + GRACE_US);
                assert!(is_early || is_over, "the fd of #{number} is closed within the grace");
                self.note_torn(number);
            }
        }
    }

    fn note_heard(&mut self, number: usize, began: u64, heard: &Heard) {
        self.tell(|| format!("  to #{number}: {}", super::story::heard(heard)));
        match heard {
            Heard::Welcome { user, kept, friends, .. } => {
                let line = &mut self.lines[number];
                line.user = Some(*user);
                line.view = View::at_login(friends, line.asked_us);
                let token = line.asked.pop_front().flatten();
                if let Some(token) = token
                    && line.can_speak()
                {
                    assert!(self.used_tokens.insert(token), "a token has logged in twice");
                }
                for chat in kept {
                    self.shadow.written(*user, chat, began);
                }
            }
            Heard::Refused => drop(self.lines[number].asked.pop_front()),
            Heard::Chat(chat) => {
                let user = self.lines[number].user.expect("a chat comes to somebody who is logged in");
                self.shadow.written(user, chat, began);
            }
            Heard::Answer { seq, errno, full } if *seq < CONFIRMATIONS => {
                self.shadow.answered(*seq, *errno, full);
            }
            Heard::Answer { seq, errno, .. } => {
                let (user, upto) = self.confirmations[(*seq - CONFIRMATIONS) as usize];
                if *errno == 0 {
                    self.shadow.confirmed(user, upto, began);
                }
            }
            Heard::Complaint => self.lines[number].complaints += 1,
            Heard::Goodbye => self.lines[number].is_sent_away = true,
            Heard::Presence { of, online, epoch } => {
                let now_us = self.at_us();
                self.sight.tell(&mut self.lines[number].view, *of, *online, *epoch, now_us);
            }
            Heard::Ping | Heard::Other => {}
        }
    }

    /// Nothing more is written to a connection: what is torn is not completed.
    pub(super) fn note_torn(&mut self, number: usize) {
        let line = &self.lines[number];
        if line.torn().is_empty() {
            return;
        }
        let users: Vec<UserId> = line.user.into_iter().chain(line.asked_for).collect();
        for user in users {
            self.shadow.torn(user, self.lines[number].torn());
        }
    }
}
