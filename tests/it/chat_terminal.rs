//! `linger chat` as people meet it: through a pseudo-terminal.

use serde_json::json;

use crate::common::chat::{Scripted, Terminal, UP, listener};
use crate::common::{Client, Home, PASSWORD, Server, eventually};

#[test]
fn the_password_is_asked_for_and_never_shown() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("/quit\r");
    assert_eq!(terminal.end(), Some(0));
    assert!(terminal.seen().contains("Password of alice: "), "{:?}", terminal.seen());
    assert!(!terminal.seen().contains(PASSWORD), "{:?}", terminal.seen());
}

#[test]
fn friends_and_groups_are_shown_with_their_state_after_the_login() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let (_bob, bob) = server.user("bob");
    let [carol] = server.absent(["carol"]);
    for friend in [bob, carol] {
        alice.ask(&json!({"msgid": 7, "friendid": friend, "seq": friend}));
    }
    alice.ask(&json!({"msgid": 8, "groupname": "team", "groupdesc": "", "seq": 0}));
    drop(alice);
    let mut terminal = Terminal::with_password(server.addr, "alice", &[]);
    terminal.shows(&format!("* friends: bob ({bob}) online, carol ({carol}) offline"));
    terminal.shows("* group team (1): alice online");
}

#[test]
fn an_incoming_message_leaves_a_half_typed_line_whole() {
    let server = Server::start(&[]);
    let (mut bob, bob_id) = server.user("bob");
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    let alice = server.home.db().query_row("SELECT id FROM user WHERE name = 'alice'", [], |row| row.get(0));
    terminal.types(&format!("/to {bob_id}\r"));
    terminal.shows(&format!("{bob_id}> "));
    terminal.types("half a li");
    terminal.shows("half a li");
    bob.chat(alice.unwrap(), "hello \u{1b}[2Jalice");
    // The message ends its line, and the input line is drawn again below it.
    terminal.shows("bob: hello \\u{1b}[2Jalice\r\n");
    terminal.shows(&format!("{bob_id}> half a li"));
    terminal.types("ne\r");
    assert_eq!(bob.hear()["msg"], "half a line");
    // By now the name is known.
    terminal.shows("bob> ");
}

#[test]
fn the_up_arrow_brings_the_last_line_back() {
    let server = Server::start(&[]);
    let (mut bob, bob_id) = server.user("bob");
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types(&format!("/to {bob_id}\r"));
    terminal.shows(&format!("{bob_id}> "));
    terminal.types("say it again\r");
    assert_eq!(bob.hear()["msg"], "say it again");
    terminal.shows(&format!("{bob_id}> "));
    terminal.types(UP);
    terminal.shows("say it again");
    terminal.types("!\r");
    assert_eq!(bob.hear()["msg"], "say it again!");
}

#[test]
fn quit_leaves_and_the_user_is_offline() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("/help\r");
    terminal.shows("/friends");
    terminal.shows("> ");
    terminal.types("/quit\r");
    assert_eq!(terminal.end(), Some(0));
    eventually("alice is offline", || server.home.online() == 0);
    assert_eq!(server.home.reasons(1), ["peer_closed"]);
}

#[test]
fn the_end_of_the_input_leaves_too() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("\x04");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_kick_is_shown_above_the_line_and_the_session_goes_on() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("half");
    terminal.shows("half");
    server.cli(&["kick", "alice", "--reason", "lunch break"]);
    terminal.shows("! sent away: kicked: lunch break");
    terminal.shows("trying again in ");
    terminal.shows("> half");
    terminal.shows("* logged in again as alice");
    terminal.shows("> half");
}

#[test]
fn advice_to_stop_ends_a_terminal_in_the_middle_of_a_line() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("half");
    terminal.shows("half");
    let mut newer = Client::connect(&server);
    newer.login_as("alice");
    assert_eq!(terminal.end(), Some(1));
    assert!(terminal.seen().contains("linger: sent away: replaced: "), "{:?}", terminal.seen());
}

#[test]
fn all_that_came_before_the_end_is_on_the_screen() {
    let (listener, addr) = listener();
    let mut terminal = Terminal::with_password(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    terminal.shows("> ");
    terminal.types("half");
    terminal.shows("half");
    let count = 300;
    for n in 0..count {
        server.say(&json!({"msgid": 6, "id": 2, "name": "bob", "msg": format!("letter {n}")}));
    }
    server.say(&json!({"msgid": 20, "reason": "replaced", "errmsg": "elsewhere", "advice": "stop"}));
    drop(server);
    assert_eq!(terminal.end(), Some(1));
    for n in 0..count {
        terminal.shows(&format!("bob: letter {n}\r\n"));
    }
    terminal.shows("linger: sent away: replaced: elsewhere");
}

#[test]
fn a_signal_ends_a_terminal_in_order() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.terminate();
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_terminal_in_which_signals_are_ignored_is_one_like_any_other() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::start_ignoring_signals(server.addr, "alice", &["--register"]);
    terminal.gives_password();
    terminal.shows("* logged in");
    terminal.terminate();
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn people_talk_after_a_crash_of_the_server_too() {
    let home = Home::new();
    let server = Server::start_at(&home, &[]);
    let addr = server.addr;
    let mut terminal = Terminal::logged_in(addr, "alice", &["--register"]);
    server.crash();
    terminal.shows("trying again in ");
    let server = Server::start_at(&home, &["--listen", &addr.to_string()]);
    terminal.shows("* logged in again as alice");
    terminal.types("1: to myself\r");
    terminal.shows("alice: to myself");
    terminal.types("/quit\r");
    assert_eq!(terminal.end(), Some(0));
    drop(server);
}
