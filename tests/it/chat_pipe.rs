//! `linger chat` as scripts meet it: through pipes, and against a server that plays tricks.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::chat::{Filter, Scripted, chat, glance, listener};
use crate::common::{Server, one_line, run};

#[test]
fn two_filters_talk() {
    let server = Server::start(&[]);
    let [alice, bob] = server.absent(["alice", "bob"]);
    let mut one = Filter::start(server.addr, "alice", &[]);
    let mut other = Filter::start(server.addr, "bob", &[]);
    one.say(&format!("{bob}: hello: bob"));
    other.hears("alice: hello: bob");
    // By name, because she has written.
    other.say("alice: hello");
    one.hears("bob: hello");
    other.say(&format!("/to {alice}"));
    other.say("bob: is no address now");
    one.hears("bob: bob: is no address now");
    for mut filter in [one, other] {
        filter.end_input();
        assert_eq!(filter.end(), (Some(0), vec![], vec![]));
    }
}

#[test]
fn a_filter_registers_and_creates_and_joins_groups() {
    let server = Server::start(&[]);
    let mut one = Filter::start(server.addr, "alice", &["--register"]);
    one.say("/create the team");
    one.answers("created group the team (1)");
    let mut other = Filter::start(server.addr, "bob", &["--register"]);
    other.say("/join 1");
    other.answers("joined group 1");
    other.say("@1: hello all");
    one.hears("bob@the team: hello all");
    one.say("/group the team");
    one.say("welcome");
    other.hears("alice@1: welcome");
}

#[test]
fn what_was_kept_comes_at_the_next_glance() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let [bob] = server.absent(["bob"]);
    for text in ["one", "two\nlines \u{1b}[2J"] {
        alice.chat(bob, text);
    }
    alice.quiet();
    let seen = glance(server.addr, "bob");
    assert_eq!(seen.stdout, "alice: one\nalice: two\\u{a}lines \\u{1b}[2J\n");
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""));
    assert_eq!(glance(server.addr, "bob").stdout, "");
}

#[test]
fn all_that_was_sent_has_arrived_when_a_filter_has_ended() {
    let server = Server::start(&[]);
    let [_, bob] = server.absent(["alice", "bob"]);
    let mut filter = Filter::start(server.addr, "alice", &[]);
    let count = 800;
    for n in 0..count {
        filter.say(&format!("{bob}: {n}"));
    }
    filter.end_input();
    assert_eq!(filter.end(), (Some(0), vec![], vec![]));
    let texts: Vec<String> = glance(server.addr, "bob").stdout.lines().map(str::to_owned).collect();
    assert_eq!(texts, (0..count).map(|n| format!("alice: {n}")).collect::<Vec<_>>());
}

#[test]
fn lines_that_fail_are_told_and_make_the_run_a_failure() {
    let server = Server::start(&[]);
    server.absent(["alice"]);
    let mut filter = Filter::start(server.addr, "alice", &[]);
    filter.say("carol: hello");
    filter.complains("no id known for carol; use /to ID or /add ID");
    filter.say("99: hello");
    filter.complains("not delivered to 99");
    filter.say("hello");
    filter.complains("to whom?");
    filter.say("/dance");
    filter.complains("there is no command /dance");
    filter.end_input();
    let (code, stdout, stderr) = filter.end();
    assert_eq!((code, stdout.len()), (Some(1), 0));
    assert_eq!(stderr, ["linger: lines that failed: 4"]);
}

#[test]
fn a_refused_login_is_one_line_and_code_1() {
    let server = Server::start(&[]);
    server.absent(["alice"]);
    let mut wrong = chat(server.addr, "alice", &[]);
    wrong.env("LINGER_PASSWORD", "wrong");
    one_line(&run(wrong), 1);
    one_line(&glance(server.addr, "nobody"), 1);
    one_line(&run(chat(server.addr, "alice", &["--register"])), 1);
}

#[test]
fn a_server_that_is_not_there_is_one_line_and_code_1() {
    let (listener, addr) = listener();
    drop(listener);
    let done = glance(addr, "alice");
    one_line(&done, 1);
    assert!(done.stderr.contains(&addr.to_string()), "{done:?}");
}

#[test]
fn a_kick_is_told_with_its_reason_and_the_filter_comes_back() {
    let server = Server::start(&[]);
    let [alice] = server.absent(["alice"]);
    let mut filter = Filter::logged_in(&server, "alice");
    assert_eq!(server.cli(&["kick", "alice", "--reason", "lunch break", "--wait"]).code, Some(0));
    filter.complains("sent away: kicked: lunch break");
    filter.complains("trying again in ");
    filter.say(&format!("{alice}: to myself"));
    filter.hears("alice: to myself");
}

#[test]
fn a_filter_outlives_a_crash_of_the_server() {
    let server = Server::start(&[]);
    let [alice] = server.absent(["alice"]);
    let addr = server.addr;
    let mut filter = Filter::logged_in(&server, "alice");
    let home = server.crash();
    filter.complains("trying again in ");
    filter.say(&format!("{alice}: while nobody was there"));
    let server = Server::start_at(&home, &["--listen", &addr.to_string()]);
    filter.hears("alice: while nobody was there");
    filter.end_input();
    assert_eq!(filter.end().0, Some(0));
    drop(server);
}

#[test]
fn a_filter_comes_back_by_token_and_by_its_password_where_that_is_dead() {
    let server = Server::start(&[]);
    let [alice] = server.absent(["alice"]);
    let mut filter = Filter::logged_in(&server, "alice");
    let resumed = || server.cli_json(&["stats"])["logins_resumed"].clone();
    assert_eq!(server.cli(&["kick", "alice", "--wait"]).code, Some(0));
    filter.complains("sent away: kicked");
    filter.complains("trying again in ");
    filter.say(&format!("{alice}: back by token"));
    filter.hears("alice: back by token");
    assert_eq!(resumed(), 1);
    assert_eq!(server.cli(&["kick", "alice", "--ban", "1s", "--wait"]).code, Some(0));
    filter.complains("sent away: banned");
    filter.complains("trying again in ");
    filter.say(&format!("{alice}: back by password"));
    filter.hears("alice: back by password");
    assert_eq!(resumed(), 1);
}

#[test]
fn a_takeover_ends_the_older_one_for_good() {
    let server = Server::start(&[]);
    let [alice] = server.absent(["alice"]);
    let older = Filter::logged_in(&server, "alice");
    let mut newer = Filter::start(server.addr, "alice", &[]);
    let (code, _, stderr) = older.end();
    assert_eq!(code, Some(1));
    assert!(stderr.len() == 1 && stderr[0].starts_with("linger: sent away: replaced: "), "{stderr:?}");
    newer.say(&format!("{alice}: still here"));
    newer.hears("alice: still here");
}

// Against a server that plays tricks.

#[test]
fn what_was_not_answered_is_sent_again_under_the_same_seq() {
    let (listener, addr) = listener();
    let mut filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    filter.say("2: hello");
    filter.end_input();
    let first = server.hear();
    assert_eq!((&first["toid"], &first["msg"]), (&json!(2), &json!("hello")));
    drop(server);
    filter.complains("trying again in ");
    let mut server = Scripted::admit(&listener);
    assert_eq!(server.hear(), first);
    server.say(&json!({"msgid": 0, "errno": 0, "seq": first["seq"], "re": 6}));
    assert_eq!(filter.end().0, Some(0));
}

#[test]
fn a_token_goes_out_instead_of_the_password() {
    let (listener, addr) = listener();
    let _filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::accept(&listener);
    assert!(server.hear().get("token").is_none());
    server.say(&json!({"msgid": 2, "errno": 0, "id": 1, "name": "alice", "token": "t"}));
    drop(server);
    let mut server = Scripted::accept(&listener);
    assert_eq!(
        server.hear(),
        json!({"msgid": 1, "token": "t", "caps": ["ack", "presence", "ping", "resume"]})
    );
}

#[test]
fn nobody_comes_back_before_the_time_that_a_goodbye_names() {
    let (listener, addr) = listener();
    let filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    let asked_ms = 1_200;
    server.say(&json!({"msgid": 20, "reason": "banned", "errmsg": "spam", "advice": "retry_after", "retry_after_ms": asked_ms}));
    let told = Instant::now();
    drop(server);
    filter.complains("sent away: banned: spam");
    filter.complains("trying again in 1.");
    Scripted::admit(&listener);
    assert!(told.elapsed() >= Duration::from_millis(asked_ms), "after {:?}", told.elapsed());
}

#[test]
fn a_chat_with_a_number_is_confirmed_and_shown_once() {
    let (listener, addr) = listener();
    let filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    let mut letter = json!({"msgid": 6, "id": 2, "name": "bob", "msg": "once", "mid": 7});
    server.say(&letter);
    filter.hears("bob: once");
    assert_eq!(server.hear(), json!({"msgid": 24, "mid": 7}));
    drop(server);
    let mut server = Scripted::admit(&listener);
    letter["again"] = json!(true);
    server.say(&letter);
    assert_eq!(server.hear(), json!({"msgid": 24, "mid": 7}));
    letter["mid"] = json!(8);
    letter["msg"] = json!("twice");
    server.say(&letter);
    filter.hears("bob: twice");
}

#[test]
fn a_ping_of_the_server_is_answered() {
    let (listener, addr) = listener();
    let _filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    server.say(&json!({"msgid": 22}));
    server.hear();
}

#[test]
fn a_message_that_ends_connections_is_given_up() {
    let (listener, addr) = listener();
    let mut filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    filter.say(&format!("2: {}", "x".repeat(5_000)));
    server.hear();
    server.say(
        &json!({"msgid": 20, "reason": "frame_too_large", "errmsg": "too large", "advice": "reconnect"}),
    );
    drop(server);
    filter.complains("sent away: frame_too_large");
    filter.complains("not delivered to 2: it is larger than the server takes");
    filter.complains("trying again in ");
    filter.say("2: short");
    assert_eq!(Scripted::admit(&listener).hear()["msg"], "short");
}
