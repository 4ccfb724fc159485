//! What a token is good for, and when it dies.

use super::*;
use crate::channel::{ChannelId, Reason};
use crate::message::command::WorkerCommand;
use crate::message::event::{BanName, BanRequest};
use crate::message::event::{ControlAsk, Event};
use crate::message::reply::Answer;
use crate::message::request::Ask;
use crate::message::request::Resume;
use crate::protocol::msgid::Msgid;
use crate::protocol::request::Caps;
use crate::store::{TOKEN_LIFE_MS, Tokens, Transactions, Users};
use crate::testing::builders::{HASH, SECOND_US, Summary, login, reply_to};
use crate::testing::fake_socket::Client;
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::{Disk, Fault};
use crate::testing::server_harness::ServerHarness;

const LIFE_US: u64 = TOKEN_LIFE_MS as u64 * 1000;

/// A login by password that wants a token.
fn log_in(harness: &mut MainHarness, user: UserId, channel: ChannelId) {
    let Ask::Login(mut asked) = login(user, channel) else { unreachable!("a login") };
    asked.caps.resume = true;
    harness.ask(Ask::Login(asked));
}

/// A login by token that wants another one.
fn resume(harness: &mut MainHarness, token: &str, channel: ChannelId) {
    harness.ask(Ask::Resume(Resume {
        reply_to: reply_to(channel, Msgid::Login, None),
        peer: ([127, 0, 0, 1], 1).into(),
        token: TokenHash::of(token),
        caps: Caps { resume: true, ..Caps::default() },
    }));
}

/// The token in the only answer that a channel has got.
fn token_of(harness: &MainHarness, channel: ChannelId) -> String {
    let commands = harness.mailboxes.take(Some(channel));
    match &commands[..] {
        [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] => {
            login.token.as_ref().expect("a token").text().to_owned()
        }
        other => panic!("no login answer but {other:?}"),
    }
}

/// Somebody who is online and has a token.
fn online(harness: &mut MainHarness, user: UserId) -> (Online, String) {
    let channel = harness.connect();
    log_in(harness, user, channel);
    harness.finish_all();
    let token = token_of(harness, channel);
    (present(harness, user, channel), token)
}

fn present(harness: &MainHarness, user: UserId, channel: ChannelId) -> Online {
    Online { user, channel, session: harness.session(channel).expect("the login is granted") }
}

/// Somebody who had a session and has its token.
fn gone(harness: &mut MainHarness, user: UserId) -> String {
    let (who, token) = online(harness, user);
    leave(harness, who, Reason::PeerClosed);
    token
}

fn leave(harness: &mut MainHarness, who: Online, reason: Reason) {
    harness.send_away(who, reason);
    harness.settle(who, vec![]);
    harness.finish_all();
    harness.forget();
}

/// What a login by that token is told, alone.
fn told(harness: &mut MainHarness, token: &str) -> Vec<Summary> {
    let channel = harness.connect();
    resume(harness, token, channel);
    harness.finish_all();
    harness.heard(channel)
}

fn ban(harness: &mut MainHarness, name: BanName) {
    let (reply, _answer) = crossbeam_channel::bounded(1);
    let ask = BanRequest { names: vec![name], length_ms: 60_000, reason: None, reply };
    harness.take(Event::Control(ControlAsk::Ban(ask)));
    harness.finish_all();
}

fn unban(harness: &mut MainHarness) {
    let (reply, _answer) = crossbeam_channel::bounded(1);
    harness.take(Event::Control(ControlAsk::Unban { names: vec![BanName::All], reply }));
    harness.finish_all();
}

fn stored(disk: &Disk, token: &str) -> Option<TokenRow> {
    disk.beside().token(&TokenHash::of(token)).unwrap()
}

/// As another program changes a password.
fn change_password(harness: &MainHarness, user: UserId) {
    let mut store = harness.disk.beside();
    store.begin().unwrap();
    store.renew_password(user, HASH, "another").unwrap();
    store.commit().unwrap();
}

const REFUSED: [Summary; 1] = [Summary::Refused(Errno::Refused)];

#[test]
fn a_token_is_random_and_never_written_anywhere() {
    let (one, other) = (Token::random().unwrap(), Token::random().unwrap());
    assert_eq!(one.text().len(), 64);
    assert!(one.text().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(one.text(), other.text());
    assert!(!format!("{one:?}").contains(one.text()));
}

#[test]
fn a_token_logs_in_once_and_brings_the_next_one() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let first = gone(&mut harness, user);
    let channel = harness.connect();
    resume(&mut harness, &first, channel);
    harness.finish_all();
    let second = token_of(&harness, channel);
    assert_ne!(first, second);
    assert!(harness.is_online(user));
    assert_eq!(told(&mut harness, &first), REFUSED, "it is used up");
    assert_eq!(harness.session(channel).map(|_| ()), Some(()), "who is online stays so");
    assert_eq!(harness.fixtures.metrics.logins_resumed.value(), 1);
    assert!(harness.fixtures.jobs.take_all().is_empty(), "no password was to be hashed");
    let who = present(&harness, user, channel);
    leave(&mut harness, who, Reason::PeerReset);
    let channel = harness.connect();
    resume(&mut harness, &second, channel);
    harness.finish_all();
    assert_ne!(token_of(&harness, channel), second);
}

#[test]
fn no_token_is_given_unless_it_is_wanted() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    let channel = harness.connect();
    harness.ask(Ask::Resume(Resume {
        reply_to: reply_to(channel, Msgid::Login, None),
        peer: ([127, 0, 0, 1], 1).into(),
        token: TokenHash::of(&token),
        caps: Caps::default(),
    }));
    harness.finish_all();
    let commands = harness.mailboxes.take(Some(channel));
    let [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] = &commands[..] else {
        panic!("no login answer but {commands:?}")
    };
    assert!(login.session.is_some() && login.token.is_none());
}

#[test]
fn a_token_lives_for_five_minutes_after_the_end_of_its_session_and_no_longer() {
    for (passed_us, lives) in [(LIFE_US - 1000, true), (LIFE_US, false)] {
        let mut harness = MainHarness::new();
        let user = harness.user("ann");
        let (who, token) = online(&mut harness, user);
        // The session is far longer than a token lives.
        harness.fixtures.clock.advance(3 * LIFE_US);
        leave(&mut harness, who, Reason::PeerReset);
        harness.fixtures.clock.advance(passed_us);
        let heard = told(&mut harness, &token);
        assert_eq!(heard == [Summary::welcome(user, &[])], lives, "{heard:?}");
        assert_eq!(heard == REFUSED, !lives, "{heard:?}");
    }
}

#[test]
fn tokens_that_are_over_are_removed_and_those_of_sessions_that_go_on_are_not() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.user("ann"), harness.user("bob"));
    let (over, (_, lives)) = (gone(&mut harness, ann), online(&mut harness, bob));
    harness.fixtures.clock.advance(LIFE_US - 1000);
    harness.finish_all();
    assert!(stored(&harness.disk, &over).is_some());
    harness.fixtures.clock.advance(61 * SECOND_US);
    harness.ask(Ask::Fence { reply_to: reply_to(harness.connect(), Msgid::Logout, None) });
    harness.finish_all();
    harness.finish_all();
    assert_eq!(stored(&harness.disk, &over), None);
    assert!(stored(&harness.disk, &lives).is_some());
}

#[test]
fn a_crash_ends_a_session_when_the_server_is_back() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let (_, token) = online(&mut harness, user);
    harness.fixtures.clock.advance(3 * LIFE_US);
    // The clock by hand starts anew with a desk.
    let mut harness = harness.restarted();
    let now_ms = harness.fixtures.clock.now().unix_ms;
    assert_eq!(stored(&harness.disk, &token).and_then(|row| row.expires_ms), Some(now_ms + TOKEN_LIFE_MS));
    assert_eq!(told(&mut harness, &token), [Summary::welcome(user, &[])]);
}

#[test]
fn of_two_logins_by_one_token_one_is_granted_and_one_refused() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    let (first, second) = (harness.connect(), harness.connect());
    resume(&mut harness, &token, first);
    resume(&mut harness, &token, second);
    harness.finish_all();
    assert_eq!(harness.heard(first), [Summary::welcome(user, &[])]);
    assert_eq!(harness.heard(second), REFUSED);
    assert_eq!(harness.fixtures.registry.len(), 1);
}

#[test]
fn a_token_takes_over_from_its_own_session_and_of_two_only_one_does() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let (who, token) = online(&mut harness, user);
    let (first, second) = (harness.connect(), harness.connect());
    resume(&mut harness, &token, first);
    resume(&mut harness, &token, second);
    harness.finish_all();
    assert_eq!(harness.heard(who.channel), [Summary::Leave(Reason::Replaced)]);
    harness.settle(who, vec![]);
    harness.finish_all();
    assert_eq!(harness.heard(first), [Summary::welcome(user, &[])]);
    assert_eq!(harness.heard(second), REFUSED);
    assert_eq!(harness.disk.ends(user), [Reason::Replaced]);
}

#[test]
fn a_used_token_sends_nobody_away() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    let first = harness.connect();
    resume(&mut harness, &token, first);
    harness.finish_all();
    harness.forget();
    assert_eq!(told(&mut harness, &token), REFUSED);
    assert_eq!(harness.heard(first), []);
}

#[test]
fn a_login_that_the_policy_refuses_leaves_the_token_good() {
    let mut harness = MainHarness::rejecting();
    let user = harness.user("ann");
    let (who, token) = online(&mut harness, user);
    let other = harness.connect();
    resume(&mut harness, &token, other);
    harness.finish_all();
    harness.take(Event::Probed { channel: who.channel, user });
    harness.finish_all();
    assert_eq!(harness.heard(other), [Summary::Refused(Errno::AlreadyOnline)]);
    leave(&mut harness, who, Reason::PeerClosed);
    assert_eq!(told(&mut harness, &token), [Summary::welcome(user, &[])]);
}

#[test]
fn a_login_that_could_not_be_committed_uses_nothing_up() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    let (first, second) = (harness.connect(), harness.connect());
    resume(&mut harness, &token, first);
    resume(&mut harness, &token, second);
    harness.disk.fail_next(Fault::Commit);
    harness.finish_all();
    for channel in [first, second] {
        assert_eq!(
            harness.heard(channel),
            [Summary::Refused(Errno::NotStored)],
            "nothing is said of the token"
        );
    }
    assert!(!harness.is_online(user));
    assert_eq!(told(&mut harness, &token), [Summary::welcome(user, &[])]);
}

#[test]
fn a_store_that_cannot_be_read_is_no_word_on_the_token() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    for good in [0, 1, 2] {
        harness.disk.fail_after(good, Fault::Read);
        assert_eq!(told(&mut harness, &token), [Summary::Refused(Errno::NotStored)], "after {good} reads");
    }
    assert_eq!(told(&mut harness, &token), [Summary::welcome(user, &[])]);
}

#[test]
fn the_end_of_a_session_runs_its_token_out_although_its_commit_fails_at_first() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let (who, token) = online(&mut harness, user);
    harness.send_away(who, Reason::PeerReset);
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    assert_eq!(stored(&harness.disk, &token).and_then(|row| row.expires_ms), None);
    harness.settle(who, vec![]);
    harness.finish_all();
    assert!(stored(&harness.disk, &token).is_some_and(|row| row.expires_ms.is_some()));
}

#[test]
fn a_changed_password_kills_tokens_and_a_renewed_hash_does_not() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let (before, dead) = (gone(&mut harness, user), gone(&mut harness, user));
    let channel = harness.connect();
    let Ask::Login(mut asked) = login(user, channel) else { unreachable!("a login") };
    (asked.renewed, asked.caps.resume) = (Some("stronger".into()), true);
    harness.ask(Ask::Login(asked));
    harness.finish_all();
    let renewed = token_of(&harness, channel);
    let who = present(&harness, user, channel);
    leave(&mut harness, who, Reason::PeerClosed);
    for token in [before, renewed] {
        let channel = harness.connect();
        resume(&mut harness, &token, channel);
        harness.finish_all();
        assert_eq!(harness.heard(channel), [Summary::welcome(user, &[])]);
        let who = present(&harness, user, channel);
        leave(&mut harness, who, Reason::PeerClosed);
    }
    let mut store = harness.disk.beside();
    store.begin().unwrap();
    store.renew_password(user, "stronger", "another").unwrap();
    store.commit().unwrap();
    assert_eq!(told(&mut harness, &dead), REFUSED);
}

#[test]
fn a_password_that_changes_while_a_token_waits_refuses_it() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let (who, token) = online(&mut harness, user);
    let other = harness.connect();
    resume(&mut harness, &token, other);
    harness.finish_all();
    change_password(&harness, user);
    harness.settle(who, vec![]);
    harness.finish_all();
    assert_eq!(harness.heard(other), REFUSED);
}

#[test]
fn a_ban_of_a_user_kills_all_tokens_of_that_user_for_good() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.user("ann"), harness.user("bob"));
    let (old, bobs) = (gone(&mut harness, ann), gone(&mut harness, bob));
    let (_, new) = online(&mut harness, ann);
    ban(&mut harness, BanName::Id(ann));
    unban(&mut harness);
    for token in [&old, &new] {
        assert_eq!(told(&mut harness, token), REFUSED);
    }
    assert_eq!(told(&mut harness, &bobs), [Summary::welcome(bob, &[])]);
}

#[test]
fn a_session_that_a_ban_of_its_address_ends_takes_the_users_tokens_along_and_a_kick_does_not() {
    for (reason, lives) in [(Reason::Banned, false), (Reason::Kicked, true)] {
        let mut harness = MainHarness::new();
        let user = harness.user("ann");
        let old = gone(&mut harness, user);
        let (who, new) = online(&mut harness, user);
        leave(&mut harness, who, reason);
        assert_eq!([&old, &new].map(|token| stored(&harness.disk, token).is_some()), [lives; 2]);
    }
}

#[test]
fn a_good_token_from_a_banned_address_hears_of_the_ban_and_stays_good_and_a_bad_one_does_not() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    ban(&mut harness, BanName::Block("127.0.0.0/8".parse().unwrap()));
    assert_eq!(told(&mut harness, &token), [Summary::Refused(Errno::TooMany)]);
    assert_eq!(told(&mut harness, "guess"), REFUSED);
    unban(&mut harness);
    assert_eq!(told(&mut harness, &token), [Summary::welcome(user, &[])]);
}

#[test]
fn a_user_whose_row_is_gone_has_no_token() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    harness.disk.delete_user(user);
    assert_eq!(told(&mut harness, &token), REFUSED);
}

#[test]
fn a_client_that_has_ended_its_side_neither_uses_a_token_up_nor_gets_one() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    let half_closed = harness.connect();
    harness.fixtures.table.mark_ended(half_closed);
    resume(&mut harness, &token, half_closed);
    harness.finish_all();
    let commands = harness.mailboxes.take(Some(half_closed));
    let [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] = &commands[..] else {
        panic!("no login answer but {commands:?}")
    };
    assert!(login.session.is_none() && login.token.is_none());
    assert_eq!(told(&mut harness, &token), [Summary::welcome(user, &[])]);
}

#[test]
fn a_channel_that_has_left_uses_no_token_up() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let token = gone(&mut harness, user);
    let channel = harness.connect();
    assert!(harness.kicker.kick(channel, Reason::PeerReset));
    resume(&mut harness, &token, channel);
    harness.finish_all();
    assert_eq!(told(&mut harness, &token), [Summary::welcome(user, &[])]);
}

#[test]
fn only_the_newest_tokens_of_a_user_stay() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let tokens: Vec<String> = (0..=TOKENS_MAX).map(|_| gone(&mut harness, user)).collect();
    assert_eq!(stored(&harness.disk, &tokens[0]), None);
    assert!(tokens[1..].iter().all(|token| stored(&harness.disk, token).is_some()));
}

// With workers.

fn ask(server: &mut ServerHarness, client: &Client, request: &str) -> serde_json::Value {
    client.send(request);
    server.run();
    let heard = client.heard();
    serde_json::from_str(&heard).unwrap_or_else(|error| panic!("{error}: {heard:?}"))
}

fn with_token(token: &str) -> String {
    format!(r#"{{"msgid":1,"token":"{token}"}}"#)
}

fn token_in(answer: &serde_json::Value) -> String {
    answer["token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
}

/// A session's token, and its client.
fn given(server: &mut ServerHarness, user: UserId) -> (Client, String) {
    let (_, client) = server.workers.accept();
    let request = format!(r#"{{"msgid":1,"id":{user},"password":"{HASH}","caps":["resume"]}}"#);
    let token = token_in(&ask(server, &client, &request));
    (client, token)
}

#[test]
fn what_is_behind_a_login_by_token_waits_for_it() {
    let mut server = ServerHarness::new();
    let user = server.user("ann");
    let (first, token) = given(&mut server, user);
    first.end();
    server.run();
    let (_, client) = server.workers.accept();
    client.send(&format!(
        r#"{{"msgid":1,"token":"{token}","seq":"s"}}{{"msgid":6,"toid":{user},"msg":"hello","time":"now"}}"#
    ));
    server.run();
    let lines = client.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], format!(r#"{{"msgid":2,"errno":0,"id":{user},"name":"ann","seq":"s"}}"#));
    assert!(lines[1].contains("hello"), "{lines:?}");
}

#[test]
fn tokens_that_fail_count_as_refused_logins_of_their_channel() {
    let mut server = ServerHarness::new();
    let (_, client) = server.workers.accept();
    for _ in 0..9 {
        assert_eq!(ask(&mut server, &client, &with_token("guess"))["errno"], 1);
    }
    client.send(&with_token("guess"));
    server.run();
    let lines = client.lines();
    assert!(lines.len() == 2 && lines[1].contains("auth_failed"), "{lines:?}");
    assert_eq!(server.workers.fixtures.metrics.logins_failed.value(), 10);
}

#[test]
fn an_address_from_which_too_many_tokens_have_failed_is_closed_for_a_minute() {
    const FAR: &str = "192.0.2.1:1";
    let mut server = ServerHarness::new();
    let user = server.user("ann");
    let (_first, token) = given(&mut server, user);
    // Channels have ten tries each, the address sixty.
    for _ in 0..6 {
        let (_, client) = server.workers.accept_from(FAR, 0);
        for _ in 0..10 {
            client.send(&with_token("guess"));
        }
        server.run();
        assert!(client.heard().contains("auth_failed"));
    }
    let (_, client) = server.workers.accept_from(FAR, 0);
    assert_eq!(ask(&mut server, &client, &with_token(&token))["errno"], 17);
    assert_eq!(ask(&mut server, &client, &with_token("guess"))["errno"], 17);
    server.pass(61);
    let (_, client) = server.workers.accept_from(FAR, 0);
    assert_eq!(ask(&mut server, &client, &with_token(&token))["errno"], 0, "it was not looked at");
}
