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
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::{Disk, Fault};
use crate::testing::whole::Server;
use crate::testing::wire::Client;
use crate::testing::words::{HASH, SECOND_US, Said, asker, login};

const LIFE_US: u64 = TOKEN_LIFE_MS as u64 * 1000;

/// A login by password that wants a token.
fn log_in(desk: &mut Desk, user: UserId, channel: ChannelId) {
    let Ask::Login(mut asked) = login(user, channel) else { unreachable!("a login") };
    asked.caps.resume = true;
    desk.ask(Ask::Login(asked));
}

/// A login by token that wants another one.
fn resume(desk: &mut Desk, token: &str, channel: ChannelId) {
    desk.ask(Ask::Resume(Resume {
        asker: asker(channel, Msgid::Login, None),
        peer: ([127, 0, 0, 1], 1).into(),
        token: TokenHash::of(token),
        caps: Caps { resume: true, ..Caps::default() },
    }));
}

/// The token in the only answer that a channel has got.
fn token_of(desk: &Desk, channel: ChannelId) -> String {
    let commands = desk.letters.take(Some(channel));
    match &commands[..] {
        [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] => {
            login.token.as_ref().expect("a token").text().to_owned()
        }
        other => panic!("no login answer but {other:?}"),
    }
}

/// Somebody who is online and has a token.
fn online(desk: &mut Desk, user: UserId) -> (Online, String) {
    let channel = desk.connect();
    log_in(desk, user, channel);
    desk.finish_all();
    let token = token_of(desk, channel);
    (present(desk, user, channel), token)
}

fn present(desk: &Desk, user: UserId, channel: ChannelId) -> Online {
    Online { user, channel, session: desk.session(channel).expect("the login is granted") }
}

/// Somebody who had a session and has its token.
fn gone(desk: &mut Desk, user: UserId) -> String {
    let (who, token) = online(desk, user);
    leave(desk, who, Reason::PeerClosed);
    token
}

fn leave(desk: &mut Desk, who: Online, reason: Reason) {
    desk.send_away(who, reason);
    desk.settle(who, vec![]);
    desk.finish_all();
    desk.forget();
}

/// What a login by that token is told, alone.
fn told(desk: &mut Desk, token: &str) -> Vec<Said> {
    let channel = desk.connect();
    resume(desk, token, channel);
    desk.finish_all();
    desk.heard(channel)
}

fn ban(desk: &mut Desk, name: BanName) {
    let (reply, _answer) = crossbeam_channel::bounded(1);
    let ask = BanRequest { names: vec![name], length_ms: 60_000, reason: None, reply };
    desk.take(Event::Control(ControlAsk::Ban(ask)));
    desk.finish_all();
}

fn unban(desk: &mut Desk) {
    let (reply, _answer) = crossbeam_channel::bounded(1);
    desk.take(Event::Control(ControlAsk::Unban { names: vec![BanName::All], reply }));
    desk.finish_all();
}

fn stored(disk: &Disk, token: &str) -> Option<TokenRow> {
    disk.beside().token(&TokenHash::of(token)).unwrap()
}

/// As another program changes a password.
fn change_password(desk: &Desk, user: UserId) {
    let mut store = desk.disk.beside();
    store.begin().unwrap();
    store.renew_password(user, HASH, "another").unwrap();
    store.commit().unwrap();
}

const REFUSED: [Said; 1] = [Said::Refused(Errno::Refused)];

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
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let first = gone(&mut desk, user);
    let channel = desk.connect();
    resume(&mut desk, &first, channel);
    desk.finish_all();
    let second = token_of(&desk, channel);
    assert_ne!(first, second);
    assert!(desk.is_online(user));
    assert_eq!(told(&mut desk, &first), REFUSED, "it is used up");
    assert_eq!(desk.session(channel).map(|_| ()), Some(()), "who is online stays so");
    assert_eq!(desk.commons.metrics.logins_resumed.value(), 1);
    assert!(desk.commons.jobs.take_all().is_empty(), "no password was to be hashed");
    let who = present(&desk, user, channel);
    leave(&mut desk, who, Reason::PeerReset);
    let channel = desk.connect();
    resume(&mut desk, &second, channel);
    desk.finish_all();
    assert_ne!(token_of(&desk, channel), second);
}

#[test]
fn no_token_is_given_unless_it_is_wanted() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    let channel = desk.connect();
    desk.ask(Ask::Resume(Resume {
        asker: asker(channel, Msgid::Login, None),
        peer: ([127, 0, 0, 1], 1).into(),
        token: TokenHash::of(&token),
        caps: Caps::default(),
    }));
    desk.finish_all();
    let commands = desk.letters.take(Some(channel));
    let [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] = &commands[..] else {
        panic!("no login answer but {commands:?}")
    };
    assert!(login.session.is_some() && login.token.is_none());
}

#[test]
fn a_token_lives_for_five_minutes_after_the_end_of_its_session_and_no_longer() {
    for (passed_us, lives) in [(LIFE_US - 1000, true), (LIFE_US, false)] {
        let mut desk = Desk::new();
        let user = desk.user("ann");
        let (who, token) = online(&mut desk, user);
        // The session is far longer than a token lives.
        desk.commons.clock.advance(3 * LIFE_US);
        leave(&mut desk, who, Reason::PeerReset);
        desk.commons.clock.advance(passed_us);
        let heard = told(&mut desk, &token);
        assert_eq!(heard == [Said::welcome(user, &[])], lives, "{heard:?}");
        assert_eq!(heard == REFUSED, !lives, "{heard:?}");
    }
}

#[test]
fn tokens_that_are_over_are_removed_and_those_of_sessions_that_go_on_are_not() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.user("ann"), desk.user("bob"));
    let (over, (_, lives)) = (gone(&mut desk, ann), online(&mut desk, bob));
    desk.commons.clock.advance(LIFE_US - 1000);
    desk.finish_all();
    assert!(stored(&desk.disk, &over).is_some());
    desk.commons.clock.advance(61 * SECOND_US);
    desk.ask(Ask::Fence { asker: asker(desk.connect(), Msgid::Logout, None) });
    desk.finish_all();
    desk.finish_all();
    assert_eq!(stored(&desk.disk, &over), None);
    assert!(stored(&desk.disk, &lives).is_some());
}

#[test]
fn a_crash_ends_a_session_when_the_server_is_back() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let (_, token) = online(&mut desk, user);
    desk.commons.clock.advance(3 * LIFE_US);
    // The clock by hand starts anew with a desk.
    let mut desk = desk.restarted();
    let now_ms = desk.commons.clock.now().unix_ms;
    assert_eq!(stored(&desk.disk, &token).and_then(|row| row.expires_ms), Some(now_ms + TOKEN_LIFE_MS));
    assert_eq!(told(&mut desk, &token), [Said::welcome(user, &[])]);
}

#[test]
fn of_two_logins_by_one_token_one_is_granted_and_one_refused() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    let (first, second) = (desk.connect(), desk.connect());
    resume(&mut desk, &token, first);
    resume(&mut desk, &token, second);
    desk.finish_all();
    assert_eq!(desk.heard(first), [Said::welcome(user, &[])]);
    assert_eq!(desk.heard(second), REFUSED);
    assert_eq!(desk.commons.registry.len(), 1);
}

#[test]
fn a_token_takes_over_from_its_own_session_and_of_two_only_one_does() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let (who, token) = online(&mut desk, user);
    let (first, second) = (desk.connect(), desk.connect());
    resume(&mut desk, &token, first);
    resume(&mut desk, &token, second);
    desk.finish_all();
    assert_eq!(desk.heard(who.channel), [Said::Leave(Reason::Replaced)]);
    desk.settle(who, vec![]);
    desk.finish_all();
    assert_eq!(desk.heard(first), [Said::welcome(user, &[])]);
    assert_eq!(desk.heard(second), REFUSED);
    assert_eq!(desk.disk.ends(user), [Reason::Replaced]);
}

#[test]
fn a_used_token_sends_nobody_away() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    let first = desk.connect();
    resume(&mut desk, &token, first);
    desk.finish_all();
    desk.forget();
    assert_eq!(told(&mut desk, &token), REFUSED);
    assert_eq!(desk.heard(first), []);
}

#[test]
fn a_login_that_the_policy_refuses_leaves_the_token_good() {
    let mut desk = Desk::rejecting();
    let user = desk.user("ann");
    let (who, token) = online(&mut desk, user);
    let other = desk.connect();
    resume(&mut desk, &token, other);
    desk.finish_all();
    desk.take(Event::Probed { channel: who.channel, user });
    desk.finish_all();
    assert_eq!(desk.heard(other), [Said::Refused(Errno::AlreadyOnline)]);
    leave(&mut desk, who, Reason::PeerClosed);
    assert_eq!(told(&mut desk, &token), [Said::welcome(user, &[])]);
}

#[test]
fn a_login_that_could_not_be_committed_uses_nothing_up() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    let (first, second) = (desk.connect(), desk.connect());
    resume(&mut desk, &token, first);
    resume(&mut desk, &token, second);
    desk.disk.fail_next(Fault::Commit);
    desk.finish_all();
    for channel in [first, second] {
        assert_eq!(desk.heard(channel), [Said::Refused(Errno::NotStored)], "nothing is said of the token");
    }
    assert!(!desk.is_online(user));
    assert_eq!(told(&mut desk, &token), [Said::welcome(user, &[])]);
}

#[test]
fn a_store_that_cannot_be_read_is_no_word_on_the_token() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    for good in [0, 1, 2] {
        desk.disk.fail_after(good, Fault::Read);
        assert_eq!(told(&mut desk, &token), [Said::Refused(Errno::NotStored)], "after {good} reads");
    }
    assert_eq!(told(&mut desk, &token), [Said::welcome(user, &[])]);
}

#[test]
fn the_end_of_a_session_runs_its_token_out_although_its_commit_fails_at_first() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let (who, token) = online(&mut desk, user);
    desk.send_away(who, Reason::PeerReset);
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    assert_eq!(stored(&desk.disk, &token).and_then(|row| row.expires_ms), None);
    desk.settle(who, vec![]);
    desk.finish_all();
    assert!(stored(&desk.disk, &token).is_some_and(|row| row.expires_ms.is_some()));
}

#[test]
fn a_changed_password_kills_tokens_and_a_renewed_hash_does_not() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let (before, dead) = (gone(&mut desk, user), gone(&mut desk, user));
    let channel = desk.connect();
    let Ask::Login(mut asked) = login(user, channel) else { unreachable!("a login") };
    (asked.renewed, asked.caps.resume) = (Some("stronger".into()), true);
    desk.ask(Ask::Login(asked));
    desk.finish_all();
    let renewed = token_of(&desk, channel);
    let who = present(&desk, user, channel);
    leave(&mut desk, who, Reason::PeerClosed);
    for token in [before, renewed] {
        let channel = desk.connect();
        resume(&mut desk, &token, channel);
        desk.finish_all();
        assert_eq!(desk.heard(channel), [Said::welcome(user, &[])]);
        let who = present(&desk, user, channel);
        leave(&mut desk, who, Reason::PeerClosed);
    }
    let mut store = desk.disk.beside();
    store.begin().unwrap();
    store.renew_password(user, "stronger", "another").unwrap();
    store.commit().unwrap();
    assert_eq!(told(&mut desk, &dead), REFUSED);
}

#[test]
fn a_password_that_changes_while_a_token_waits_refuses_it() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let (who, token) = online(&mut desk, user);
    let other = desk.connect();
    resume(&mut desk, &token, other);
    desk.finish_all();
    change_password(&desk, user);
    desk.settle(who, vec![]);
    desk.finish_all();
    assert_eq!(desk.heard(other), REFUSED);
}

#[test]
fn a_ban_of_a_user_kills_all_tokens_of_that_user_for_good() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.user("ann"), desk.user("bob"));
    let (old, bobs) = (gone(&mut desk, ann), gone(&mut desk, bob));
    let (_, new) = online(&mut desk, ann);
    ban(&mut desk, BanName::Id(ann));
    unban(&mut desk);
    for token in [&old, &new] {
        assert_eq!(told(&mut desk, token), REFUSED);
    }
    assert_eq!(told(&mut desk, &bobs), [Said::welcome(bob, &[])]);
}

#[test]
fn a_session_that_a_ban_of_its_address_ends_takes_the_users_tokens_along_and_a_kick_does_not() {
    for (reason, lives) in [(Reason::Banned, false), (Reason::Kicked, true)] {
        let mut desk = Desk::new();
        let user = desk.user("ann");
        let old = gone(&mut desk, user);
        let (who, new) = online(&mut desk, user);
        leave(&mut desk, who, reason);
        assert_eq!([&old, &new].map(|token| stored(&desk.disk, token).is_some()), [lives; 2]);
    }
}

#[test]
fn a_good_token_from_a_banned_address_hears_of_the_ban_and_stays_good_and_a_bad_one_does_not() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    ban(&mut desk, BanName::Block("127.0.0.0/8".parse().unwrap()));
    assert_eq!(told(&mut desk, &token), [Said::Refused(Errno::TooMany)]);
    assert_eq!(told(&mut desk, "guess"), REFUSED);
    unban(&mut desk);
    assert_eq!(told(&mut desk, &token), [Said::welcome(user, &[])]);
}

#[test]
fn a_user_whose_row_is_gone_has_no_token() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    desk.disk.delete_user(user);
    assert_eq!(told(&mut desk, &token), REFUSED);
}

#[test]
fn a_client_that_has_ended_its_side_neither_uses_a_token_up_nor_gets_one() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    let half_closed = desk.connect();
    desk.commons.table.mark_ended(half_closed);
    resume(&mut desk, &token, half_closed);
    desk.finish_all();
    let commands = desk.letters.take(Some(half_closed));
    let [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] = &commands[..] else {
        panic!("no login answer but {commands:?}")
    };
    assert!(login.session.is_none() && login.token.is_none());
    assert_eq!(told(&mut desk, &token), [Said::welcome(user, &[])]);
}

#[test]
fn a_channel_that_has_left_uses_no_token_up() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let token = gone(&mut desk, user);
    let channel = desk.connect();
    assert!(desk.kicker.kick(channel, Reason::PeerReset));
    resume(&mut desk, &token, channel);
    desk.finish_all();
    assert_eq!(told(&mut desk, &token), [Said::welcome(user, &[])]);
}

#[test]
fn only_the_newest_tokens_of_a_user_stay() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let tokens: Vec<String> = (0..=TOKENS_MAX).map(|_| gone(&mut desk, user)).collect();
    assert_eq!(stored(&desk.disk, &tokens[0]), None);
    assert!(tokens[1..].iter().all(|token| stored(&desk.disk, token).is_some()));
}

// With workers.

fn ask(server: &mut Server, client: &Client, request: &str) -> serde_json::Value {
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
fn given(server: &mut Server, user: UserId) -> (Client, String) {
    let (_, client) = server.bench.accept();
    let request = format!(r#"{{"msgid":1,"id":{user},"password":"{HASH}","caps":["resume"]}}"#);
    let token = token_in(&ask(server, &client, &request));
    (client, token)
}

#[test]
fn what_is_behind_a_login_by_token_waits_for_it() {
    let mut server = Server::new();
    let user = server.user("ann");
    let (first, token) = given(&mut server, user);
    first.end();
    server.run();
    let (_, client) = server.bench.accept();
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
    let mut server = Server::new();
    let (_, client) = server.bench.accept();
    for _ in 0..9 {
        assert_eq!(ask(&mut server, &client, &with_token("guess"))["errno"], 1);
    }
    client.send(&with_token("guess"));
    server.run();
    let lines = client.lines();
    assert!(lines.len() == 2 && lines[1].contains("auth_failed"), "{lines:?}");
    assert_eq!(server.bench.commons.metrics.logins_failed.value(), 10);
}

#[test]
fn an_address_from_which_too_many_tokens_have_failed_is_closed_for_a_minute() {
    const FAR: &str = "192.0.2.1:1";
    let mut server = Server::new();
    let user = server.user("ann");
    let (_first, token) = given(&mut server, user);
    // Channels have ten tries each, the address sixty.
    for _ in 0..6 {
        let (_, client) = server.bench.accept_from(FAR, 0);
        for _ in 0..10 {
            client.send(&with_token("guess"));
        }
        server.run();
        assert!(client.heard().contains("auth_failed"));
    }
    let (_, client) = server.bench.accept_from(FAR, 0);
    assert_eq!(ask(&mut server, &client, &with_token(&token))["errno"], 17);
    assert_eq!(ask(&mut server, &client, &with_token("guess"))["errno"], 17);
    server.pass(61);
    let (_, client) = server.bench.accept_from(FAR, 0);
    assert_eq!(ask(&mut server, &client, &with_token(&token))["errno"], 0, "it was not looked at");
}
