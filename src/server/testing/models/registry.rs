//! Who is online, with late openings and removals: `registry`, and the mailbox behind it.

use super::{ANN, model, spawn, table_with_ann};
use crate::channel::{ChannelId, SessionNo};
use crate::message::chat::Sender;
use crate::message::command::WorkerCommand;
use crate::registry::{Registry, SessionEntry};
use crate::sync::Arc;
use crate::testing::builders::accepted;
use crate::worker::{Mailbox, Wake};

const FIRST: ChannelId = ChannelId { slot: 0, generation: 1 };
const SECOND: ChannelId = ChannelId { slot: 1, generation: 1 };
const SESSION: SessionNo = SessionNo(1);
const NEXT: SessionNo = SessionNo(2);

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

fn online(channel: ChannelId, session: SessionNo) -> SessionEntry {
    let sender = Arc::new(Sender { id: ANN, name: "ann".into() });
    SessionEntry { channel, session, worker: 0, direct: false, sender }
}

/// The old session's worker opens it late and main removes it late, while a newer one is entered: the newer one stays
/// as it was entered, under number and name, and nobody who looks meanwhile finds it open.
fn the_newer_stays(newer: ChannelId, session: SessionNo) {
    model(move || {
        let registry: Arc<Registry> = Arc::default();
        registry.enter(ANN, online(FIRST, SESSION));
        let worker = {
            let registry = Arc::clone(&registry);
            spawn(move || registry.open(ANN, FIRST, SESSION))
        };
        let sender = {
            let registry = Arc::clone(&registry);
            spawn(move || registry.direct(ANN))
        };
        registry.enter(ANN, online(newer, session));
        registry.remove(ANN, FIRST, SESSION);
        worker.join().unwrap();
        if let Some((_, channel, found)) = sender.join().unwrap() {
            assert_eq!((channel, found), (FIRST, SESSION), "only the older one was ever open");
        }
        assert_eq!(registry.find(ANN), Some(online(newer, session)));
        assert_eq!((registry.named("ann"), registry.len()), (Some(ANN), 1));
    });
}

/// A late opening and a late removal change nothing about a newer session on another channel.
#[test]
fn what_comes_late_leaves_a_newer_session_on_another_channel_alone() {
    the_newer_stays(SECOND, SESSION);
}

/// A late opening and a late removal change nothing about a newer session on the same channel.
#[test]
fn what_comes_late_leaves_a_newer_session_on_the_same_channel_alone() {
    the_newer_stays(FIRST, NEXT);
}

/// A session that is opened while it is removed is gone afterwards, under number and name.
#[test]
fn a_session_that_is_removed_does_not_come_back() {
    model(|| {
        let registry: Arc<Registry> = Arc::default();
        registry.enter(ANN, online(FIRST, SESSION));
        let worker = {
            let registry = Arc::clone(&registry);
            spawn(move || registry.open(ANN, FIRST, SESSION))
        };
        let control = {
            let registry = Arc::clone(&registry);
            spawn(move || registry.named("ann").and_then(|user| registry.find(user)))
        };
        registry.remove(ANN, FIRST, SESSION);
        worker.join().unwrap();
        if let Some(found) = control.join().unwrap() {
            assert_eq!((found.channel, found.session), (FIRST, SESSION));
        }
        assert_eq!((registry.find(ANN), registry.named("ann")), (None, None));
        assert_eq!(registry.direct(ANN), None);
    });
}

/// Main hands over what it held, then the command that opens the session: no chat that another worker writes directly
/// gets into the mailbox before what was held.
#[test]
fn nothing_newer_overtakes_what_main_has_held() {
    model(|| {
        let (table, channel, session) = table_with_ann();
        let registry: Arc<Registry> = Arc::default();
        let mailbox = Arc::new(Mailbox::new(Box::new(NoWake)));
        registry.enter(ANN, online(channel, session));
        let chat = move |text| WorkerCommand::Chat {
            to: channel,
            session,
            user: ANN,
            chat: accepted(text),
            origin: None,
        };
        let main = {
            let (table, mailbox) = (Arc::clone(&table), Arc::clone(&mailbox));
            spawn(move || {
                mailbox.push(&table, &mut vec![chat("held")], &mut Vec::new());
                mailbox.push(&table, &mut vec![WorkerCommand::Open { channel, session }], &mut Vec::new());
            })
        };
        let sender = {
            let (table, mailbox, registry) = (table, Arc::clone(&mailbox), Arc::clone(&registry));
            spawn(move || {
                if registry.direct(ANN).is_some() {
                    mailbox.push(&table, &mut vec![chat("newer")], &mut Vec::new());
                }
            })
        };
        let mut heard = Vec::new();
        let mut turn = || {
            let mut commands = Vec::new();
            mailbox.take(&mut commands);
            for command in commands {
                match command {
                    WorkerCommand::Chat { chat, .. } => {
                        heard.push(crate::testing::builders::texts(&[chat]).concat());
                    }
                    WorkerCommand::Open { .. } => registry.open(ANN, channel, session),
                    other => panic!("nobody wrote {other:?}"),
                }
            }
        };
        turn();
        main.join().unwrap();
        turn();
        sender.join().unwrap();
        turn();
        assert!(heard == ["held"] || heard == ["held", "newer"], "{heard:?}");
    });
}
