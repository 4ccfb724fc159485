//! Bans on the control socket: what is said of them, and how control has main put and lift them.
//!
//! The messages are plain data, used by both ends. The rest runs on the threads of the control socket; main decides.

use super::ban_protocol::{BanLength, BanList, BanRow, BanTarget, Unban, Unbanned, name_of};
use super::refusal::{ANSWER_MAX, Refusal, silent};
use crate::ids::UserId;
use crate::message::disconnect::CloseInfo;
use crate::message::event::{BanFault, BanName, BanRequest, ControlAsk, Event};
use crate::offline_queue::OfflineQueue;
use crate::store::{Ban, BanSubject};
use crate::sync::Arc;
use crossbeam_channel::{Receiver, Sender};
use std::collections::HashSet;
use std::time::Instant;

/// Bans that one entry of main's queue asks for, so that many of them do not keep main from others.
const BANS_PER_ASK: usize = 256;

/// Bans that main has been asked for.
pub(super) struct BansUnderWay {
    length: BanLength,
    reason: Option<Arc<str>>,
    asked: usize,
    reply: Sender<Result<Vec<Ban>, BanFault>>,
    answers: Receiver<Result<Vec<Ban>, BanFault>>,
}

impl BansUnderWay {
    pub(super) fn new(length: BanLength, reason: Option<&str>) -> Self {
        let (reply, answers) = crossbeam_channel::unbounded();
        let reason = reason.map(Into::into);
        BansUnderWay { length, reason, asked: 0, reply, answers }
    }

    /// The goodbye of the channels that are sent away for it.
    pub(super) fn close_info(&self) -> CloseInfo {
        CloseInfo::banned(self.length.ms(), self.reason.as_deref())
    }
}

impl BansUnderWay {
    /// Has main ban somebody. To be called before their channels are sent away: who logs in again then comes behind
    /// it in main's queue.
    pub(super) fn ask_main<S>(&mut self, queue: &OfflineQueue<S>, names: &[BanName]) {
        for names in names.chunks(BANS_PER_ASK) {
            self.asked += 1;
            queue.push(Event::Control(ControlAsk::Ban(BanRequest {
                names: names.to_vec(),
                length_ms: self.length.ms(),
                reason: self.reason.clone(),
                reply: self.reply.clone(),
            })));
        }
    }

    /// Waits until all that main was asked for is committed; answers whom it has banned, each once.
    pub(super) fn wait(&self) -> Result<Vec<Ban>, Refusal> {
        let deadline = Instant::now() + ANSWER_MAX;
        let mut put = Vec::new();
        for _ in 0..self.asked {
            put.extend(self.answers.recv_deadline(deadline).map_err(|_| silent("main"))??);
        }
        let mut seen = HashSet::new();
        put.retain(|ban: &Ban| seen.insert(ban.banned));
        Ok(put)
    }
}

/// Asks main for all bans.
pub(super) fn list<S>(queue: &OfflineQueue<S>) -> Result<BanList, Refusal> {
    let (reply, answer) = crossbeam_channel::bounded(1);
    queue.push(Event::Control(ControlAsk::Bans(reply)));
    let bans = answer.recv_timeout(ANSWER_MAX).map_err(|_| silent("main"))?;
    Ok(BanList { bans: rows(bans) })
}

/// Has main lift bans.
pub(super) fn lift<S>(queue: &OfflineQueue<S>, unban: &Unban) -> Result<Unbanned, Refusal> {
    let (reply, answer) = crossbeam_channel::bounded(1);
    let names = unban.targets.iter().filter_map(|target| name_of(&target.0)).collect();
    queue.push(Event::Control(ControlAsk::Unban { names, reply }));
    let bans = answer.recv_timeout(ANSWER_MAX).map_err(|_| silent("main"))??;
    Ok(Unbanned { unbanned: rows(bans) })
}

/// Users by number, then addresses.
fn rows(mut bans: Vec<Ban>) -> Vec<BanRow> {
    bans.sort_by_cached_key(|ban| match ban.banned {
        BanSubject::User(UserId(user)) => (0, user, String::new()),
        BanSubject::Block(block) => (1, 0, block.to_string()),
    });
    bans.iter()
        .map(|ban| BanRow {
            user: if let BanSubject::User(user) = ban.banned { Some(user.0) } else { None },
            name: ban.name.as_deref().map(Into::into),
            address: if let BanSubject::Block(block) = ban.banned { Some(block.to_string()) } else { None },
            until_ms: ban.until_ms,
            reason: ban.reason.as_deref().map(Into::into),
        })
        .collect()
}

impl From<BanLength> for u64 {
    fn from(length: BanLength) -> u64 {
        length.ms()
    }
}

impl From<BanTarget> for String {
    fn from(target: BanTarget) -> String {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::command::WorkerSender;

    use crate::admin::history_pool::HistoryPool;
    use crate::admin::protocol::Kick;
    use crate::admin::server::AdminServer;
    use crate::admin::target::Target;
    use crate::channel::{Reason, Stage};
    use crate::logs::Logs;
    use crate::store::sqlite::{Durability, History, SqliteStore};
    use crate::testing::fake_socket::Fd;
    use crate::testing::main_harness::MainHarness;
    use crate::testing::recording_mailboxes::RecordingMailboxes;

    #[test]
    fn rows_come_in_one_order() {
        let ban = |banned| Ban { banned, name: None, until_ms: 1, reason: None };
        let block = |text: &str| ban(BanSubject::Block(text.parse().unwrap()));
        let bans = vec![
            block("10.0.0.9"),
            ban(BanSubject::User(UserId(20))),
            block("10.0.0.0/8"),
            ban(BanSubject::User(UserId(3))),
        ];
        let order: Vec<_> = rows(bans).into_iter().map(|row| (row.user, row.address)).collect();
        let address = |text: &str| (None, Some(text.to_owned()));
        assert_eq!(order, [(Some(3), None), (Some(20), None), address("10.0.0.0/8"), address("10.0.0.9")]);
    }

    /// The control socket's side of a made-up server. The history is empty; nobody asks for it.
    fn control(harness: &MainHarness) -> AdminServer<Fd> {
        let directory = tempfile::tempdir().unwrap();
        SqliteStore::open(directory.path(), Durability::Normal, 0).unwrap();
        AdminServer {
            handles: harness.fixtures.surroundings(
                &(Arc::<RecordingMailboxes>::clone(&harness.mailboxes) as Arc<dyn WorkerSender>),
            ),
            archive: HistoryPool::new(History::open(directory.path()).unwrap()),
            logs: Logs::start().unwrap(),
            facts: Vec::new(),
        }
    }

    #[test]
    fn whoever_logs_in_between_the_kick_and_the_ban_is_sent_away_too() {
        let mut harness = MainHarness::new();
        let (alice, bob) = (harness.user("alice"), harness.online("bob"));
        let control = control(&harness);
        let ban = Some(BanLength::try_from(10_000).unwrap());
        let kick = Kick { targets: vec![Target::User(alice)], reason: None, wait: false, ban };
        let (channel, kicked) = std::thread::scope(|scope| {
            let kicked = scope.spawn(|| control.kick(&kick).unwrap().kicked);
            // It has asked for the ban, has not found the user, and has asked whether the user is marked online.
            let end = Instant::now() + ANSWER_MAX;
            while harness.fixtures.queue.len() < 2 {
                assert!(Instant::now() < end, "control asks main");
                std::thread::yield_now();
            }
            // The login was in the queue of main before all that.
            let channel = harness.connect();
            harness.log_in(alice, channel);
            harness.take_queued();
            harness.finish();
            (channel, kicked.join().unwrap())
        });
        let rows: Vec<_> = kicked.iter().map(|row| (row.channel.clone(), row.user)).collect();
        assert_eq!(rows, [(Some(channel.to_string()), Some(alice.0))]);
        harness.finish_all();
        assert_eq!(harness.fixtures.table.stage(channel), Stage::Offline);
        assert_eq!(harness.fixtures.metrics.left.value(Reason::Banned), 1);
        assert!(harness.fixtures.table.is_live(bob.channel, bob.session), "nobody else is meant");
        let again = harness.connect();
        harness.log_in(alice, again);
        harness.finish_all();
        assert_eq!(harness.fixtures.table.stage(again), Stage::Connected, "she is kept out from now on");
    }
}
