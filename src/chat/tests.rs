//! A session without sockets and clock: which actions it returns after which events.

use super::ChatError;
use super::session::{Account, Action, ExitPolicy, Output, Session};

const WAIT_MS: u64 = 5_000;

const LOGGED_IN: &str = r#"{"msgid":2,"errno":0,"id":1,"name":"alice"}"#;

fn session(register: bool) -> Session {
    let account = Account { who: "alice".into(), password: "p".into(), register };
    Session::new(account, ExitPolicy { wait_ms: WAIT_MS, strict: true }, 9)
}

/// A session that is online since 0.
fn online() -> Session {
    let mut session = session(false);
    session.connected(0);
    session.received(LOGGED_IN.as_bytes(), 0);
    session.take_actions();
    session
}

/// What it sends now.
fn sent(session: &mut Session) -> Vec<String> {
    let send = |action| if let Action::Send(object) = action { Some(object) } else { None };
    session.take_actions().into_iter().filter_map(send).collect()
}

/// The answer to a request that was sent.
fn answer(request: &str, errno: i64) -> String {
    let request: serde_json::Value = serde_json::from_str(request).unwrap();
    serde_json::json!({"msgid": 0, "errno": errno, "errmsg": "no", "seq": request["seq"]}).to_string()
}

fn goodbye(reason: &str, advice: &str) -> String {
    format!(r#"{{"msgid":20,"reason":"{reason}","errmsg":"why","advice":"{advice}"}}"#)
}

#[test]
fn a_registration_is_followed_by_a_login() {
    let mut session = session(true);
    session.connected(0);
    assert!(sent(&mut session)[0].contains(r#""msgid":4"#));
    session.received(br#"{"msgid":5,"errno":0,"id":1}"#, 1);
    assert!(sent(&mut session)[0].contains(r#""msgid":1"#));
    session.received(LOGGED_IN.as_bytes(), 2);
    session.lost("gone", 3);
    session.take_actions();
    session.connected(4);
    assert!(sent(&mut session)[0].contains(r#""msgid":1"#), "once is enough");
}

#[test]
fn nothing_is_read_before_the_login() {
    let mut session = session(false);
    assert!(!session.wants_input());
    session.connected(0);
    assert!(!session.wants_input());
    session.received(LOGGED_IN.as_bytes(), 0);
    assert!(session.wants_input());
}

#[test]
fn the_end_of_the_input_waits_for_answers_and_then_for_the_server() {
    let mut session = online();
    session.execute("2: hi", 1);
    let request = sent(&mut session).remove(0);
    session.input_ended(2);
    assert!(session.take_actions().is_empty(), "unanswered");
    session.received(answer(&request, 0).as_bytes(), 3);
    assert_eq!(session.take_actions(), [Action::HalfClose]);
    assert!(session.take_outcome().is_none());
    session.received(br#"{"msgid":6,"id":2,"name":"bob","msg":"late"}"#, 4);
    assert!(
        matches!(&session.take_actions()[..], [Action::Output(Output::Chat { text, .. })] if text == "late")
    );
    session.lost("closed", 5);
    assert!(matches!(session.take_outcome(), Some(Ok(()))));
}

#[test]
fn patience_ends_too() {
    let mut session = online();
    session.execute("2: hi", 1);
    session.input_ended(2);
    session.lost("gone", 3);
    session.tick(2 + WAIT_MS - 1);
    assert!(session.take_outcome().is_none());
    session.tick(2 + WAIT_MS);
    assert!(matches!(session.take_outcome(), Some(Err(ChatError::Unanswered(1)))));
}

#[test]
fn advice_to_stop_is_the_end() {
    let mut session = online();
    session.received(goodbye("replaced", "stop").as_bytes(), 1);
    session.lost("closed", 2);
    assert!(
        matches!(session.take_outcome(), Some(Err(ChatError::SentAway { reason, .. })) if reason == "replaced")
    );
    assert!(!session.take_actions().contains(&Action::Connect));
}

#[test]
fn a_lost_connection_is_made_again_after_a_pause() {
    let mut session = online();
    session.lost("gone", 1_000);
    let due_ms = session.deadline_ms().unwrap();
    assert!((1_250..=1_500).contains(&due_ms), "{due_ms}");
    session.take_actions();
    session.tick(due_ms - 1);
    assert!(session.take_actions().is_empty());
    session.tick(due_ms);
    assert_eq!(session.take_actions(), [Action::Connect]);
    session.lost("refused", due_ms);
    assert!(session.deadline_ms().unwrap() >= due_ms + 500, "the next one is longer");
}

#[test]
fn a_server_that_is_full_is_tried_again_even_before_the_first_login() {
    let mut session = session(false);
    session.connected(0);
    session.received(goodbye("server_full", "retry_after").as_bytes(), 1);
    session.lost("closed", 2);
    assert!(session.take_outcome().is_none());
    assert!(session.deadline_ms().unwrap() >= 3_000);
}

#[test]
fn a_busy_server_is_asked_again_and_a_refusal_is_not() {
    let mut busy = session(false);
    busy.connected(0);
    busy.received(br#"{"msgid":2,"errno":18,"errmsg":"busy"}"#, 1);
    assert!(busy.take_outcome().is_none());
    assert!(busy.take_actions().contains(&Action::Disconnect));
    let mut refused = session(false);
    refused.connected(0);
    refused.received(br#"{"msgid":2,"errno":1,"errmsg":"no"}"#, 1);
    assert!(matches!(refused.take_outcome(), Some(Err(ChatError::Refused(_)))));
}

#[test]
fn a_connection_is_made_again_with_the_latest_token_and_with_the_password_if_that_is_not_taken() {
    let mut session = session(false);
    let greet = |token| format!(r#"{{"msgid":2,"errno":0,"id":1,"name":"alice","token":"{token}"}}"#);
    let mut asked = Vec::new();
    for (n, token) in ["one", "two"].into_iter().enumerate() {
        session.connected(n as u64);
        asked.extend(sent(&mut session));
        session.received(greet(token).as_bytes(), n as u64);
        session.lost("gone", n as u64);
        session.take_actions();
    }
    assert!(asked[0].contains("password"), "{asked:?}");
    assert!(asked[1].contains(r#""token":"one""#) && !asked[1].contains("password"), "{asked:?}");
    // A server that is busy has not used it up; a lost answer tells nothing.
    session.connected(3);
    session.received(br#"{"msgid":2,"errno":18,"errmsg":"busy"}"#, 3);
    session.take_actions();
    session.connected(4);
    session.lost("gone", 4);
    session.take_actions();
    session.connected(5);
    assert!(sent(&mut session)[0].contains(r#""token":"two""#));
    session.received(br#"{"msgid":2,"errno":1,"errmsg":"no"}"#, 5);
    let again = sent(&mut session);
    assert!(again.len() == 1 && again[0].contains("password"), "at once, on the same connection: {again:?}");
    session.received(br#"{"msgid":2,"errno":1,"errmsg":"no"}"#, 6);
    assert!(matches!(session.take_outcome(), Some(Err(ChatError::Refused(_)))));
}

#[test]
fn an_old_session_that_lingers_is_waited_for_but_not_at_the_first_login() {
    let online_already = br#"{"msgid":2,"errno":2,"errmsg":"online"}"#;
    let mut first = session(false);
    first.connected(0);
    first.received(online_already, 1);
    assert!(matches!(first.take_outcome(), Some(Err(ChatError::Refused(_)))));
    let mut again = online();
    again.lost("gone", 1);
    again.connected(2_000);
    again.received(online_already, 2_001);
    assert!(again.take_outcome().is_none());
}

#[test]
fn a_silent_server_is_asked_and_then_given_up() {
    let mut session = online();
    let asks_ms = session.deadline_ms().unwrap();
    session.tick(asks_ms);
    assert_eq!(sent(&mut session), [r#"{"msgid":22}"#]);
    let gives_up_ms = session.deadline_ms().unwrap();
    session.received(br#"{"msgid":23}"#, gives_up_ms - 1);
    session.tick(gives_up_ms);
    assert!(session.take_actions().is_empty(), "it has answered");
    session.tick(gives_up_ms - 1 + asks_ms);
    session.tick(gives_up_ms - 1 + gives_up_ms);
    assert!(session.take_actions().contains(&Action::Disconnect));
}

#[test]
fn a_failure_names_the_receiver_and_the_reason() {
    let mut session = online();
    session.received(br#"{"msgid":6,"id":2,"name":"bob","msg":"hi"}"#, 1);
    session.execute("bob: hi", 2);
    let request = sent(&mut session).remove(0);
    session.received(answer(&request, 20).as_bytes(), 3);
    assert_eq!(session.take_actions(), [Action::Output(Output::Error("not delivered to bob: no".into()))]);
    session.input_ended(4);
    session.lost("closed", 5);
    assert!(matches!(session.take_outcome(), Some(Err(ChatError::LinesFailed(1)))));
}

#[test]
fn what_is_typed_without_a_connection_goes_out_with_the_next_one_in_order() {
    let mut session = online();
    session.execute("2: one", 1);
    let one = sent(&mut session).remove(0);
    session.lost("gone", 2);
    session.execute("2: two", 3);
    assert!(sent(&mut session).is_empty());
    session.connected(4);
    session.received(LOGGED_IN.as_bytes(), 5);
    let all = sent(&mut session);
    assert_eq!(all[1], one, "behind the login");
    assert!(all[2].contains("two"));
}

#[test]
fn friends_that_come_and_go_are_told_once() {
    let mut session = online();
    let event =
        |state, epoch| format!(r#"{{"msgid":21,"id":2,"name":"bob","state":"{state}","epoch":{epoch}}}"#);
    session.received(event("online", 5).as_bytes(), 1);
    session.received(event("offline", 4).as_bytes(), 2);
    assert_eq!(session.take_actions(), [Action::Output(Output::Notice("bob is online".into()))]);
}

#[test]
fn a_target_stands_in_the_prompt() {
    let mut session = online();
    assert_eq!(session.prompt(), "> ");
    session.execute("/to 2", 1);
    assert_eq!(session.prompt(), "2> ");
    session.received(br#"{"msgid":6,"id":2,"name":"bob","msg":"hi"}"#, 2);
    assert_eq!(session.prompt(), "bob> ");
    session.execute("/group 5", 3);
    assert_eq!(session.prompt(), "@5> ");
    session.execute("/to", 4);
    assert_eq!(session.prompt(), "> ");
}
