//! Writes to users that their friends came or went.

use super::connection::{Codec, Connection};
use super::presence_queue::PresenceQueue;
use super::state::WorkerState;
use crate::channel::ChannelId;
use crate::message::presence::{Notice, PresenceBatch, PresenceEvent};
use crate::net::transport::Transport;
use crate::protocol::responses;

/// Unsent output of a channel below which it gets events, in bytes.
const PRESENCE_ROOM: usize = 16 * 1024;

impl<T> Connection<T> {
    /// True exactly when events wait that could be written now.
    fn has_presence_to_write(&self) -> bool {
        self.has_presence() && !self.blocked && self.closing.is_none() && self.out.len() < PRESENCE_ROOM
    }

    /// Appends events for which there is room; returns how many.
    fn write_presence(&mut self) -> u64 {
        let mut told = 0;
        while self.has_presence_to_write() {
            let event = self.active().news.as_mut().and_then(PresenceQueue::take_first);
            let Some(PresenceEvent { user, name, online, epoch }) = event else {
                self.drop_presence();
                break;
            };
            if let Codec::Json(framer) = &self.codec {
                let end = framer.terminator();
                self.out.presence(|out| {
                    responses::presence(out, user, &name, online, epoch);
                    out.push(end);
                });
                told += 1;
            }
        }
        told
    }
}

impl<T: Transport> WorkerState<T> {
    /// Main sends what has changed for the users of this worker's channels.
    pub(super) fn queue_presence(&mut self, batch: PresenceBatch) {
        for Notice { to, session, event } in batch.notices {
            // A session that is over needs no event, and the next session gets the states with its login answer.
            if self.handles.table.is_live(to, session)
                && let Some(connection) = self.connection(to)
            {
                connection.active().news.get_or_insert_default().add(event);
                self.mark_dirty(to);
            }
        }
    }

    /// Appends waiting events to the output.
    pub(super) fn write_presence(&mut self, id: ChannelId) {
        let told = self.connection(id).map_or(0, Connection::write_presence);
        self.handles.metrics.presence_told.add(told);
    }

    /// Marks a channel whose output was written whole and that has events left.
    pub(super) fn mark_waiting_presence(&mut self, id: ChannelId) {
        if self.connection(id).is_some_and(|connection| connection.has_presence_to_write()) {
            self.mark_dirty(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelId;
    use crate::channel::SessionNo;
    use crate::ids::Epoch;
    use crate::ids::UserId;
    use crate::main_loop::presence::Presence;
    use crate::message::command::WorkerCommand;
    use crate::message::presence::Notice;
    use crate::testing::fake_socket::Client;
    use crate::testing::worker_harness::WorkerHarness;
    use crate::worker::presence_queue::PresenceQueue;

    const WATCHER: UserId = UserId(1);

    fn event(user: i64, online: bool, epoch: i64) -> PresenceEvent {
        PresenceEvent { user: UserId(user), name: format!("user {user}").into(), online, epoch: Epoch(epoch) }
    }

    fn watching(harness: &mut WorkerHarness) -> (ChannelId, SessionNo, Client) {
        let (channel, client) = harness.accept();
        let session = harness.greet(channel, WATCHER);
        harness.turn();
        client.heard();
        (channel, session, client)
    }

    fn tell(harness: &WorkerHarness, to: ChannelId, session: SessionNo, events: &[PresenceEvent]) {
        let notices = events.iter().map(|event| Notice { to, session, event: event.clone() }).collect();
        harness.post(WorkerCommand::Presence(Presence::default().bulletin(notices)));
    }

    #[test]
    fn while_a_client_does_not_read_only_the_latest_of_each_friend_waits() {
        let mut harness = WorkerHarness::new();
        let (channel, session, client) = watching(&mut harness);
        client.take_only(0);
        harness.chat(channel, session, WATCHER, "in the way");
        harness.turn();
        for epoch in 1..100_000 {
            tell(&harness, channel, session, &[event(7, true, epoch), event(7, false, epoch)]);
            if epoch % 1000 == 0 {
                harness.turn();
            }
        }
        tell(&harness, channel, session, &[event(8, true, 4)]);
        harness.turn();
        client.take_only(usize::MAX);
        harness.turn();
        assert_eq!(
            client.lines(),
            [
                "in the way",
                r#"{"msgid":21,"id":7,"name":"user 7","state":"offline","epoch":99999}"#,
                r#"{"msgid":21,"id":8,"name":"user 8","state":"online","epoch":4}"#,
            ]
        );
        assert_eq!(harness.fixtures.metrics.presence_told.value(), 2);
    }

    #[test]
    fn a_late_event_of_an_older_session_is_dropped() {
        let mut news = PresenceQueue::default();
        news.add(event(7, true, 5));
        news.add(event(7, false, 4));
        assert_eq!((news.take_first(), news.take_first()), (Some(event(7, true, 5)), None));
    }

    #[test]
    fn more_events_than_fit_at_once_all_arrive_in_one_turn_of_a_client_that_reads() {
        let mut harness = WorkerHarness::new();
        let (channel, session, client) = watching(&mut harness);
        let events: Vec<PresenceEvent> = (0..5000).map(|user| event(user, true, 1)).collect();
        tell(&harness, channel, session, &events);
        harness.turn();
        assert_eq!(client.lines().len(), 5000);
    }

    #[test]
    fn an_event_for_a_session_that_is_over_is_never_written() {
        let mut harness = WorkerHarness::new();
        let (channel, session, client) = watching(&mut harness);
        client.send(r#"{"msgid":3}"#);
        harness.turn();
        tell(&harness, channel, session, &[event(7, true, 1)]);
        harness.turn();
        let next = harness.greet(channel, WATCHER);
        tell(&harness, channel, session, &[event(7, true, 2)]);
        tell(&harness, channel, next, &[event(8, true, 1)]);
        harness.turn();
        let heard = client.lines();
        assert!(heard.iter().all(|line| !line.contains(r#""id":7"#)), "{heard:?}");
        assert!(heard.last().unwrap().contains(r#""id":8"#), "{heard:?}");
    }

    #[test]
    fn what_was_not_written_before_a_logout_is_dropped_with_it_and_a_torn_event_goes_out_whole() {
        let mut harness = WorkerHarness::new();
        let (channel, session, client) = watching(&mut harness);
        client.take_only(5);
        let events: Vec<PresenceEvent> = (0..1000).map(|user| event(user, true, 1)).collect();
        tell(&harness, channel, session, &events);
        harness.turn();
        client.send(r#"{"msgid":3}"#);
        harness.turn();
        harness.turn();
        assert_eq!(harness.settlements(), [(Some(session), Vec::new())], "none of them goes to a box");
        client.take_only(usize::MAX);
        harness.turn();
        assert_eq!(
            client.heard(),
            "{\"msgid\":21,\"id\":0,\"name\":\"user 0\",\"state\":\"online\",\"epoch\":1}\n"
        );
    }
}
