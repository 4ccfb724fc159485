//! What a request gets that finds main's queue or that of the auth threads full.

use super::{ANN, BOB, NOBODY, assert_nothing_under_way, fill_queue, logged_in};
use crate::auth::pool::{JOBS_MAX, Job, Task};
use crate::channel::{Reason, Stage};
use crate::message::event::Event;
use crate::message::request::Ask;
use crate::message::request::{HashTag, Who};
use crate::protocol::msgid::Msgid;
use crate::protocol::request::Caps;
use crate::testing::builders::{HASH, reply_to};
use crate::testing::server_harness::{chat, login};
use crate::testing::worker_harness::WorkerHarness;

#[test]
fn a_chat_that_finds_mains_queue_full_is_errno_18_and_leaves_nothing_counted() {
    let mut harness = WorkerHarness::new();
    let (channel, _, client) = logged_in(&mut harness, ANN);
    fill_queue(&harness, channel);
    client.send(&format!(r#"{}{{"msgid":6,"toid":9,"msg":"x","seq":7}}"#, chat(NOBODY, "without seq")));
    client.send(r#"{"msgid":10,"groupid":1,"msg":"x"}{"msgid":7,"friendid":2}"#);
    harness.turn();
    harness.turn();
    let lines = client.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(r#""errno":18"#)), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains(r#""seq":7"#)).count(), 1);
    assert_nothing_under_way(&mut harness, channel);
    harness.entries();
    client.send(&chat(NOBODY, "again"));
    harness.turn();
    assert!(matches!(harness.entries()[..], [Event::Ask(Ask::Chat(_))]), "there is room now");
}

#[test]
fn a_login_that_finds_mains_queue_full_is_errno_18_and_what_is_behind_it_goes_on() {
    let mut harness = WorkerHarness::new();
    let (channel, client) = harness.accept();
    harness.fixtures.auth.remember(&Who::Id(ANN), HASH, ANN, HashTag::of(HASH), 1);
    fill_queue(&harness, channel);
    client.send(&format!(r#"{}{{"msgid":22}}"#, login(ANN)));
    harness.turn();
    harness.turn();
    let lines = client.lines();
    assert!(lines[0].contains(r#""msgid":2,"errno":18"#) && lines[1].contains(r#""msgid":23"#), "{lines:?}");
    assert_nothing_under_way(&mut harness, channel);
    harness.entries();
    client.send(&login(ANN));
    harness.turn();
    assert!(matches!(harness.entries()[..], [Event::Ask(Ask::Login(_))]), "there is room now");
}

#[test]
fn a_login_that_finds_no_room_at_the_auth_threads_is_errno_18() {
    let mut harness = WorkerHarness::new();
    let (channel, client) = harness.accept();
    let peer = "127.0.0.1:1".parse().unwrap();
    for _ in 0..JOBS_MAX {
        let (who, caps) = (Who::Id(ANN), Caps::default());
        for task in [
            Task::Register { peer, name: "x".into(), password: "x".into() },
            Task::Login { peer, who, password: "x".into(), caps, lines: false },
        ] {
            harness
                .fixtures
                .auth
                .submit(Job { reply_to: reply_to(channel, Msgid::Register, None), task })
                .unwrap();
        }
    }
    client.send(&format!(r#"{}{{"msgid":4,"name":"dee","password":"x"}}{{"msgid":22}}"#, login(ANN)));
    harness.turn();
    let lines = client.lines();
    assert!(lines[0].contains(r#""msgid":2,"errno":18"#), "{lines:?}");
    assert!(lines[1].contains(r#""msgid":5,"errno":18"#), "{lines:?}");
    assert!(lines[2].contains(r#""msgid":23"#), "{lines:?}");
    assert_nothing_under_way(&mut harness, channel);
}

#[test]
fn a_chat_that_comes_back_from_another_worker_to_a_full_queue_is_errno_18() {
    let mut harness = WorkerHarness::with(2, 16);
    let (channel, _, client) = logged_in(&mut harness, ANN);
    let (other, _) = harness.accept_at(1);
    harness.greet(other, BOB);
    harness.turn();
    fill_queue(&harness, channel);
    harness.begin();
    client.send(&chat(BOB, "hello"));
    harness.poll();
    assert!(harness.kicker.kick(other, Reason::Kicked), "the receiver leaves while the letter is written");
    harness.finish();
    harness.turn();
    let lines = client.lines();
    assert!(matches!(&lines[..], [line] if line.contains(r#""errno":18"#)), "{lines:?}");
    assert_nothing_under_way(&mut harness, channel);
}

#[test]
fn a_logout_needs_no_room_in_mains_queue() {
    let mut harness = WorkerHarness::new();
    let (channel, _, client) = logged_in(&mut harness, ANN);
    fill_queue(&harness, channel);
    client.send(r#"{"msgid":3}{"msgid":3,"seq":1}"#);
    harness.turn();
    harness.turn();
    assert_eq!(harness.stage(channel), Stage::Connected, "the session is over");
    let lines = client.lines();
    assert!(
        matches!(&lines[..], [line] if line.contains(r#""errno":11,"#)),
        "only the second is an error: {lines:?}"
    );
    assert_nothing_under_way(&mut harness, channel);
}
