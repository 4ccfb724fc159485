//! Main and workers together, as clients see them: what neither's own tests can show.

use super::*;
use crate::channel::{Reason, Stage};
use crate::ids::GroupId;
use crate::main_loop::transaction::LATER_US;
use crate::message::event::Event;
use crate::store::FriendsGroups;
use crate::testing::fixtures::GRACE_US;
use crate::testing::memory::Fault;

fn with_grace(grace_us: u64) -> ServerHarness {
    ServerHarness::with(Policy { grace_us, ..policy() }, 1)
}

/// The texts of the chats among some lines.
fn texts(lines: &[String]) -> Vec<String> {
    let text = |line: &String| Some(line.split_once(r#""msg":""#)?.1.split_once('"')?.0.to_owned());
    lines.iter().filter(|line| line.starts_with(r#"{"msgid":6"#)).filter_map(text).collect()
}

/// The messages of the box in a login answer.
fn brought(answer: &str) -> Vec<String> {
    let inner = answer.replace(r#"\""#, "\"");
    inner.split(r#""msg":""#).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

#[test]
fn a_login_as_another_user_leaves_what_was_unsent_to_its_own_user() {
    let mut server = ServerHarness::new();
    let (ann, channel, client) = server.online("ann");
    let (_, _, sender) = server.online("cy");
    let bob = server.user("bob");
    client.take_only(0);
    sender.send(&chat(ann, "for ann"));
    server.run();
    client.send(&login(bob));
    sender.send(&chat(ann, "for ann too"));
    server.run();
    sender.send(&chat(bob, "for bob"));
    client.take_only(usize::MAX);
    server.run();
    let lines = client.lines();
    assert!(lines[0].contains(r#""name":"bob""#), "{lines:?}");
    assert_eq!(texts(&lines), ["for bob"]);
    assert_eq!(server.disk.texts(ann).len(), 2);
    assert!(server.is_online(bob) && !server.is_online(ann));
    assert!(matches!(server.workers.stage(channel), Stage::LoggedIn(_)));
    let (_, again) = server.workers.accept();
    again.send(&login(ann));
    server.run();
    assert_eq!(brought(&again.heard()), ["for ann", "for ann too"]);
}

#[test]
fn three_logins_at_once_are_answered_once_each_and_two_are_sent_away() {
    for workers in [1, 2] {
        let mut server = ServerHarness::with(policy(), workers);
        let ann = server.user("ann");
        let clients: Vec<Client> = (0..3).map(|n| server.workers.accept_at(n % workers).1).collect();
        for client in &clients {
            client.send(&login(ann));
        }
        server.run();
        let heard: Vec<Vec<String>> = clients.iter().map(Client::lines).collect();
        for lines in &heard {
            assert_eq!(lines.iter().filter(|line| line.starts_with(r#"{"msgid":2,"errno":0"#)).count(), 1);
        }
        assert_eq!(heard.iter().filter(|lines| lines.len() == 1).count(), 1, "one stays: {heard:?}");
        assert_eq!(heard.iter().filter(|lines| lines.iter().any(|l| l.contains("replaced"))).count(), 2);
        assert_eq!(server.workers.fixtures.registry.len(), 1);
        assert_eq!(server.disk.ends(ann), [Reason::Replaced, Reason::Replaced]);
    }
}

#[test]
fn a_second_login_finds_out_that_the_first_client_has_gone() {
    let mut server = ServerHarness::with(Policy { reject_duplicates: true, ..policy() }, 1);
    let (ann, _, first) = server.online("ann");
    let (_, second) = server.workers.accept();
    second.send(&login(ann));
    server.run();
    assert!(second.heard().contains(r#""errno":2"#), "the first is there");
    // The reset has arrived, but no worker has read it when the login comes.
    second.send(&login(ann));
    server.workers.turn();
    first.reset();
    server.verify();
    server.main();
    server.run();
    assert!(second.heard().contains(r#""errno":0"#));
    assert_eq!(server.disk.ends(ann), [Reason::PeerReset]);
}

#[test]
fn a_login_with_the_end_of_the_clients_side_behind_it_begins_no_session() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (_, client) = server.workers.accept();
    client.send(&login(ann));
    client.end();
    // One turn, and main has the login at once.
    server.workers.turn();
    server.verify();
    server.main();
    server.run();
    assert!(client.heard().contains(r#""errno":0"#));
    assert_eq!(server.disk.ends(ann), []);
}

#[test]
fn a_half_closed_client_gets_its_login_answer_and_takes_nobodys_place() {
    let mut server = ServerHarness::new();
    let (ann, _, first) = server.online("ann");
    let (channel, second) = server.workers.accept();
    second.send(&login(ann));
    second.end();
    // Both are read in one turn: main may have the login before the next.
    server.workers.turn();
    server.verify();
    server.main();
    server.run();
    let lines = second.lines();
    assert!(matches!(&lines[..], [line] if line.starts_with(r#"{"msgid":2,"errno":0"#)), "{lines:?}");
    assert!(second.sees_the_end());
    assert_eq!(server.workers.stage(channel), Stage::Offline);
    assert_eq!(first.heard(), "");
    assert!(server.is_online(ann));
    assert_eq!(server.disk.ends(ann), []);
}

#[test]
fn without_grace_a_client_that_ended_its_side_still_gets_its_answers() {
    let mut server = with_grace(0);
    let (ann, channel, client) = server.online("ann");
    let bob = server.user("bob");
    client.send(&format!(
        r#"{{"msgid":6,"toid":{bob},"msg":"last words","seq":1}}{{"msgid":7,"friendid":{ann},"seq":2}}"#
    ));
    client.end();
    server.run();
    let lines = client.lines();
    assert_eq!(lines.iter().filter(|line| line.contains(r#""errno":0,"#)).count(), 2, "{lines:?}");
    assert!(client.is_closed());
    assert_eq!(server.workers.stage(channel), Stage::Free);
    assert_eq!(server.disk.texts(bob).len(), 1);
    assert!(!server.is_online(ann));
}

#[test]
fn the_fd_stays_open_for_the_grace_and_what_is_under_way_still_goes_out() {
    let mut server = with_grace(5 * SECOND_US);
    let (ann, channel, client) = server.online("ann");
    let (_, _, sender) = server.online("cy");
    client.take_only(10);
    sender.send(&chat(ann, "torn"));
    server.run();
    sender.send(&chat(ann, "not begun"));
    server.run();
    assert!(server.workers.kicker.kick(channel, Reason::Kicked));
    server.run();
    assert!(!server.is_online(ann), "offline at once");
    server.pass(3);
    client.take_only(usize::MAX);
    server.run();
    let heard = client.lines();
    assert_eq!(texts(&heard), ["torn"]);
    assert!(heard[1].contains(r#""reason":"kicked""#), "{heard:?}");
    assert!(client.sees_the_end() && !client.is_closed());
    assert_eq!(server.disk.texts(ann).len(), 1, "the other is kept");
    server.pass(3);
    assert!(client.is_closed());
}

/// What became of the messages of the latest session that ended: delivered, saved, lost.
fn account(server: &mut ServerHarness) -> (i64, i64, i64) {
    server.workers.fixtures.clock.advance(LATER_US);
    server.run();
    let account = server.disk.departures().pop().and_then(|departed| departed.completion).unwrap();
    (account.delivered, account.saved, account.lost)
}

#[test]
fn a_message_of_which_the_kernel_never_took_the_rest_is_lost_and_not_delivered() {
    let stalls: fn(&Client) = |_| ();
    let reads_on: fn(&Client) = |client| client.take_only(usize::MAX);
    for (what, then, lost) in [("stalls", stalls, 1), ("reads on", reads_on, 0), ("resets", Client::reset, 1)]
    {
        let mut server = ServerHarness::new();
        let (ann, channel, client) = server.online("ann");
        let (_, _, sender) = server.online("cy");
        sender.send(&chat(ann, "whole"));
        server.run();
        client.take_only(10);
        for text in ["torn", "not begun"] {
            sender.send(&chat(ann, text));
        }
        server.run();
        assert!(server.workers.kicker.kick(channel, Reason::Kicked));
        server.run();
        assert_eq!(account(&mut server), (2, 1, 0), "the rest goes out first, if the client reads on");
        then(&client);
        server.pass(GRACE_US / SECOND_US + 1);
        assert!(client.is_closed());
        assert_eq!(account(&mut server), (2 - lost, 1, lost), "{what}");
        assert_eq!(server.workers.fixtures.metrics.chats_lost.value(), lost as u64);
    }
}

#[test]
fn what_a_torn_login_answer_brought_is_lost_but_for_a_client_that_confirms() {
    for confirms in [false, true] {
        let mut server = ServerHarness::new();
        let ann = server.user("ann");
        let (_, _, sender) = server.online("cy");
        for text in ["one", "two"] {
            sender.send(&chat(ann, text));
        }
        server.run();
        let (channel, client) = server.workers.accept();
        client.take_only(10);
        client.send(&if confirms { login_with(ann, "ack") } else { login(ann) });
        server.run();
        assert!(server.workers.kicker.kick(channel, Reason::Kicked));
        server.pass(GRACE_US / SECOND_US + 1);
        assert!(client.is_closed());
        let kept = server.disk.texts(ann).len();
        let expected = if confirms { ((0, 2, 0), 2) } else { ((0, 0, 2), 0) };
        assert_eq!((account(&mut server), kept), expected, "confirms: {confirms}");
    }
}

#[test]
fn what_a_broken_connection_has_torn_goes_back_with_the_rest() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (_, _, sender) = server.online("cy");
    let (_, client) = server.workers.accept();
    client.send(&login(ann));
    server.run();
    client.take_only(10);
    for text in ["torn", "not begun"] {
        sender.send(&chat(ann, text));
    }
    server.run();
    client.reset();
    server.run();
    assert_eq!(account(&mut server), (0, 2, 0));
    assert_eq!(texts(&server.disk.texts(ann)), ["torn", "not begun"]);

    // The login answer that brings them is torn as well.
    let (_, client) = server.workers.accept();
    client.take_only(10);
    client.send(&login(ann));
    server.run();
    client.reset();
    server.run();
    assert_eq!(account(&mut server), (0, 0, 0));
    assert_eq!(texts(&server.disk.texts(ann)), ["torn", "not begun"], "the box has kept them");
}

#[test]
fn a_logout_that_races_a_kick_ends_once_and_loses_nothing() {
    for kick_first in [false, true] {
        let mut server = with_grace(0);
        let (ann, channel, client) = server.online("ann");
        let (_, _, sender) = server.online("cy");
        client.take_only(0);
        sender.send(&chat(ann, "unsent"));
        server.run();
        client.send(r#"{"msgid":3}"#);
        server.workers.begin();
        assert!(!kick_first || server.workers.kicker.kick(channel, Reason::Kicked));
        server.workers.poll();
        assert!(kick_first || server.workers.kicker.kick(channel, Reason::Kicked));
        server.workers.finish();
        sender.send(&chat(ann, "late"));
        server.run();
        assert!(!server.is_online(ann));
        assert_eq!(server.disk.ends(ann).len(), 1);
        assert_eq!(server.workers.stage(channel), Stage::Free);
        client.take_only(usize::MAX);
        let (_, again) = server.workers.accept();
        again.send(&login(ann));
        server.run();
        assert_eq!(brought(&again.heard()), ["unsent", "late"], "kicked first: {kick_first}");
    }
}

#[test]
fn a_login_that_is_verified_before_main_hears_of_the_logout_waits_for_it() {
    let mut server = ServerHarness::new();
    let (ann, _, client) = server.online("ann");
    let (_, _, sender) = server.online("cy");
    client.take_only(0);
    sender.send(&chat(ann, "unsent"));
    server.run();
    client.send(&format!(r#"{{"msgid":3}}{}"#, login(ann)));
    server.workers.begin();
    server.workers.poll();
    // The worker's turn is not over.
    server.verify();
    server.main();
    server.workers.finish();
    client.take_only(usize::MAX);
    server.run();
    assert_eq!(server.disk.ends(ann), [Reason::ClientQuit]);
    assert!(server.is_online(ann));
    assert_eq!(brought(client.lines().last().unwrap()), ["unsent"]);
}

#[test]
fn a_login_that_was_not_stored_leaves_no_row_though_its_channel_has_left_in_the_same_batch() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (channel, client) = server.workers.accept();
    client.send(&login(ann));
    server.workers.turn();
    server.verify();
    for entry in server.workers.entries() {
        server.main.take(entry, server.workers.fixtures.clock.now());
    }
    assert!(server.workers.kicker.kick(channel, Reason::Kicked));
    server.disk.fail_next(Fault::Commit);
    server.run();
    assert_eq!(server.disk.ends(ann), [], "there was no session");
    server.pass(GRACE_US / SECOND_US + 1);
    assert!(client.is_closed());
    assert_eq!(server.main.left_over(), []);
    server.enter(ann);
    assert!(server.is_online(ann));
}

#[test]
fn a_group_chat_that_could_not_be_stored_is_one_error_to_its_sender() {
    let mut server = ServerHarness::new();
    let (ann, _, sender) = server.online("ann");
    let (bob, _, member) = server.online("bob");
    sender.send(r#"{"msgid":8,"groupname":"g","groupdesc":"d"}"#);
    server.run();
    member.send(r#"{"msgid":9,"groupid":1}{"msgid":3}"#);
    server.run();
    let members: Vec<UserId> =
        server.disk.beside().members(GroupId(1), UserId(0), 9).unwrap().iter().map(|m| m.id).collect();
    assert_eq!(members, [ann, bob]);
    sender.send(r#"{"msgid":10,"groupid":1,"msg":"hello"}"#);
    server.workers.turn();
    server.disk.fail_next(Fault::Commit);
    server.run();
    let lines = sender.lines();
    assert!(matches!(&lines[..], [line] if line.contains(r#""errno":19"#)), "{lines:?}");
    assert_eq!(server.disk.texts(bob), [""; 0]);
}

#[test]
fn whoever_is_accepted_while_the_server_begins_to_stop_is_sent_away_too() {
    let mut server = ServerHarness::new();
    let (_, _, early) = server.online("ann");
    server.workers.begin();
    server.workers.fixtures.queue.push(Event::Stop);
    server.main();
    // The worker has not taken main's command when it accepts one more.
    let (_, late) = server.workers.accept();
    server.workers.finish();
    server.run();
    server.workers.states[0].stopped_listening();
    server.pass(1);
    for client in [&early, &late] {
        assert!(client.heard().contains("server_shutdown"));
        client.end();
    }
    server.run();
    server.run();
    assert!(late.is_closed());
    server.pass(1);
    assert!(server.main.is_finished());
}

#[test]
fn a_server_that_has_lost_its_database_says_goodbye_and_does_not_wait_for_what_it_cannot_write() {
    let mut server = ServerHarness::new();
    let (ann, _, client) = server.online("ann");
    let bob = server.user("bob");
    // Nothing is stored any more.
    server.disk.set_full(true);
    server.workers.fixtures.queue.push(Event::DatabaseLost);
    server.workers.states[0].stopped_listening();
    server.work();
    let heard = client.heard();
    assert!(heard.contains("server_shutdown"), "{heard}");
    client.end();
    server.work();
    assert_eq!(server.disk.texts(bob), [""; 0]);
    assert!(server.is_online(ann), "nothing was written");
    assert!(client.is_closed() && server.main.is_finished());
}

#[test]
fn a_stop_sends_everybody_away_and_is_over_when_all_have_gone() {
    let mut server = ServerHarness::new();
    let (ann, _, reader) = server.online("ann");
    let (bob, _, stuck) = server.online("bob");
    let (_, nobody) = server.workers.accept();
    stuck.take_only(0);
    server.workers.fixtures.queue.push(Event::Stop);
    server.workers.states[0].stopped_listening();
    server.run();
    for client in [&reader, &nobody] {
        assert!(client.heard().contains("server_shutdown"));
        client.end();
    }
    assert!(!server.main.is_finished(), "one does not read");
    server.pass(3);
    server.pass(1);
    assert!(server.main.is_finished());
    assert!(reader.is_closed() && stuck.is_closed() && nobody.is_closed());
    assert!(!server.is_online(ann) && !server.is_online(bob));
    assert_eq!(server.disk.ends(bob), [Reason::ServerShutdown]);
}
