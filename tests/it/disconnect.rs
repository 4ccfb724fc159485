//! What Linger is for: a client goes away, by itself or not, and everything about it is right.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    BULK_BYTES, Client, ECONNRESET, ENDLESS_GRACE, PASSWORD, Server, eventually, fill, numbers, offline,
    one_line, unpack,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

#[test]
fn a_client_that_closes_is_offline_in_the_database_with_one_departure() {
    let server = Server::start(&ENDLESS_GRACE);
    let (client, id) = server.user("alice");
    let (peer, channel) = (client.local_addr().to_string(), server.channel_of(id));
    assert_eq!(server.home.state(id), "online");
    drop(client);
    offline(&server, id);
    let left = server.home.departures(id);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].reason.as_str(), left[0].initiator.as_str()), ("peer_closed", "client"));
    assert_eq!((left[0].name.as_str(), left[0].errno), ("alice", None));
    assert_eq!(left[0].channel.as_deref().map(|name| name.trim_start_matches('#')), Some(channel.as_str()));
    assert_eq!(left[0].peer.as_deref(), Some(peer.as_str()));
    let now_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((now_ms - left[0].at).abs() < 60_000, "at is in Unix milliseconds: {}", left[0].at);
}

#[test]
fn a_client_process_that_is_killed_is_offline_in_the_database() {
    let server = Server::start(&ENDLESS_GRACE);
    let [id] = server.absent(["alice"]);
    let mut client = Command::new(env!("CARGO_BIN_EXE_linger"))
        .args(["chat", "alice", "--server", &server.addr.to_string()])
        .env("LINGER_PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let online = || server.home.state(id) == "online";
    let came = thread::scope(|scope| scope.spawn(|| eventually("alice is online", online)).join().is_ok());
    kill_process(Pid::from_child(&client), Signal::KILL).unwrap();
    client.wait().unwrap();
    assert!(came, "alice is online through a process of her own");
    offline(&server, id);
    assert_eq!(server.home.reasons(id).len(), 1);
}

#[test]
fn a_reset_is_told_from_a_close() {
    let server = Server::start(&ENDLESS_GRACE);
    let (client, id) = server.user("alice");
    client.reset();
    offline(&server, id);
    let left = server.home.departures(id);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].reason.as_str(), left[0].initiator.as_str()), ("peer_reset", "network"));
    assert_eq!(left[0].errno, Some(ECONNRESET));
}

#[test]
fn three_hundred_immediate_logins_again_are_all_accepted_and_leave_nobody_online() {
    const ROUNDS: usize = 300;
    let server = Server::start(&["--workers", "2"]);
    let [id] = server.absent(["alice"]);
    for round in 0..ROUNDS {
        let mut client = server.back(id);
        if round % 3 == 0 {
            client.quiet();
        }
        if round % 2 == 0 { drop(client) } else { client.reset() }
    }
    offline(&server, id);
    eventually("every session has its departure", || server.home.departures(id).len() == ROUNDS);
    let home = server.stop();
    assert_eq!(home.departures(id).len(), ROUNDS, "and none has two");
    assert_eq!(home.online(), 0);
}

#[test]
fn an_immediate_login_again_is_online_and_stays_it() {
    let server = Server::start(&["--workers", "2", "--grace", "0s"]);
    let [id] = server.absent(["alice"]);
    for round in 1..=50 {
        drop(server.back(id));
        let mut client = server.back(id);
        eventually("the first session is over", || server.home.departures(id).len() == 2 * round - 1);
        assert_eq!(server.home.state(id), "online", "an older clean-up does not touch the newer session");
        client.quiet();
        drop(client);
        eventually("the second session is over", || server.home.departures(id).len() == 2 * round);
        assert_eq!(server.home.state(id), "offline");
    }
}

#[test]
fn a_login_right_after_a_close_is_not_already_online_under_reject() {
    let server = Server::start(&["--duplicate", "reject", "--workers", "2"]);
    let [id] = server.absent(["alice"]);
    for round in 0..100 {
        let client = server.back(id);
        if round % 2 == 0 { drop(client) } else { client.reset() }
    }
    offline(&server, id);
}

#[test]
fn reject_refuses_a_second_login_and_leaves_the_first_alone() {
    let server = Server::start(&["--duplicate", "reject"]);
    let (mut first, id) = server.user("alice");
    let mut second = Client::connect(&server);
    let request = json!({"msgid": 1, "id": id, "password": PASSWORD, "seq": 9});
    let answer = second.ask(&request);
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(2)), "{answer}");
    assert!(answer["errmsg"].is_string() && answer["seq"] == 9, "{answer}");
    first.quiet();
    assert_eq!(server.home.state(id), "online");
    drop(first);
    second.login(id);
    second.quiet();
}

#[test]
fn a_takeover_sends_the_old_channel_away_and_keeps_the_user_online() {
    let server = Server::start(&["--workers", "2", "--grace", "1h"]);
    let (mut old, id) = server.user("alice");
    let (mut bob, _) = server.user("bob");
    for round in 1..=20 {
        let mut new = server.back(id);
        let goodbye = old.expect_goodbye("replaced");
        assert_eq!(goodbye["advice"], "stop");
        old.expect_end();
        assert_eq!(server.home.state(id), "online");
        eventually("the old session is over", || server.home.departures(id).len() == round);
        assert_eq!(server.home.state(id), "online");
        bob.say(&json!({"msgid": 6, "toid": id, "msg": "to the new one", "n": round}));
        assert_eq!(new.hear()["n"], round);
        old = new;
    }
    let left = server.home.departures(id);
    assert!(left.iter().all(|row| row.reason == "replaced" && row.initiator == "server"), "{left:?}");
    old.quiet();
    bob.quiet();
}

#[test]
fn many_logins_of_one_user_at_once_leave_one_session() {
    const AT_ONCE: usize = 12;
    let server = Server::start(&["--workers", "3"]);
    let [id] = server.absent(["alice"]);
    let mut clients: Vec<_> = (0..AT_ONCE).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.say(&json!({"msgid": 1, "id": id, "password": PASSWORD}));
    }
    for client in &mut clients {
        let answer = client.hear();
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(0)), "{answer}");
    }
    eventually("all but one are over", || server.home.departures(id).len() == AT_ONCE - 1);
    assert!(server.home.reasons(id).iter().all(|reason| reason == "replaced"));
    let live: Vec<_> = server.channels().into_iter().filter(|entry| entry["state"] == "live").collect();
    assert_eq!(live.len(), 1, "{live:?}");
    let survivor = live[0]["peer"].as_str().unwrap();
    for mut client in clients {
        if client.local_addr().to_string() != survivor {
            client.expect_goodbye("replaced");
            client.expect_end();
        }
    }
}

#[test]
fn a_kick_tells_the_client_why_at_once_and_not_after_the_grace() {
    let server = Server::start(&ENDLESS_GRACE);
    let (mut client, id) = server.user("alice");
    let (mut witness, _) = server.user("witness");
    assert!(server.holds_socket_of(&client));
    let receipt = server.cli_json(&["kick", &id.to_string(), "--reason", "spam", "--wait"]);
    assert_eq!(server.home.state(id), "offline", "committed before --wait returns");
    let kicked = receipt["kicked"].as_array().unwrap();
    assert_eq!(kicked.len(), 1, "{receipt}");
    assert!(receipt.get("ok").is_none(), "the answer without ok: {receipt}");
    assert_eq!((&kicked[0]["user"], &kicked[0]["name"]), (&json!(id), &json!("alice")));
    for stage in ["told_us", "shutdown_us", "offline_us"] {
        assert!(kicked[0][stage].as_u64().is_some(), "{stage} is known: {receipt}");
    }
    assert!(kicked[0]["told_us"].as_u64() <= kicked[0]["shutdown_us"].as_u64(), "{receipt}");

    let goodbye = client.expect_goodbye("kicked");
    assert_eq!((&goodbye["errmsg"], &goodbye["advice"]), (&json!("spam"), &json!("retry_after")));
    client.expect_end();
    assert!(server.holds_socket_of(&client), "the fd stays till the grace is over");
    let channel = kicked[0]["channel"].as_str().unwrap();
    let entry = server.channels().into_iter().find(|entry| entry["channel"] == channel).unwrap();
    assert_eq!(entry["state"], "lingering");

    let left = server.home.departures(id);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].reason.as_str(), left[0].initiator.as_str()), ("kicked", "admin"));
    eventually("offline_us is completed", || server.home.departures(id)[0].offline_us.is_some());
    assert_eq!(server.home.departures(id)[0].closed_us, None);
    // The input is read and dropped meanwhile, so the client may talk on without a reset.
    for _ in 0..64 {
        client.say_bytes(&[b'x'; 16 * 1024]);
    }
    witness.quiet();
}

#[test]
fn the_fd_is_closed_when_the_grace_is_over_and_not_before() {
    const GRACE_US: i64 = 300_000;
    let server = Server::start(&["--grace", "300ms"]);
    let (mut client, id) = server.user("alice");
    let start = Instant::now();
    assert!(server.kick(&id.to_string()));
    client.expect_goodbye("kicked");
    client.expect_end();
    assert!(server.holds_socket_of(&client));
    eventually("the fd is closed", || !server.holds_socket_of(&client));
    assert!(start.elapsed() >= Duration::from_micros(GRACE_US as u64));
    eventually("closed_us is completed", || server.home.departures(id)[0].closed_us.is_some());
    let closed_us = server.home.departures(id)[0].closed_us.unwrap();
    assert!((GRACE_US..10_000_000).contains(&closed_us), "{closed_us}");
    assert!(server.channels().is_empty(), "the id is free");
}

#[test]
fn a_kick_racing_a_close_makes_one_departure() {
    const ROUNDS: usize = 150;
    let server = Server::start(&["--workers", "2", "--grace", "0s"]);
    let [id] = server.absent(["alice"]);
    let (mut witness, _) = server.user("witness");
    for round in 0..ROUNDS {
        let client = server.back(id);
        let channel = format!("#{}", server.channel_of(id));
        thread::scope(|scope| {
            scope.spawn(|| server.kick(&channel));
            scope.spawn(|| server.kick(&id.to_string()));
            if round % 2 == 0 { drop(client) } else { client.reset() }
        });
        eventually("this round's departure", || server.home.departures(id).len() == round + 1);
    }
    witness.quiet();
    drop(witness);
    let home = server.stop();
    assert_eq!(home.departures(id).len(), ROUNDS, "no session ends twice");
    assert_eq!(home.online(), 0);
}

#[test]
fn a_stale_channel_id_matches_nothing_and_touches_nobody() {
    let server = Server::start(&["--grace", "0s"]);
    let (client, id) = server.user("alice");
    let stale = server.channel_of(id);
    let target = format!("#{stale}");
    drop(client);
    eventually("the id is free", || server.channels().is_empty());
    let mut others: Vec<_> = (0..4).map(|n| server.user(&format!("other {n}"))).collect();
    let slot = |channel: &str| channel.split('.').next().unwrap().to_owned();
    let reused = others.iter().any(|(_, other)| slot(&server.channel_of(*other)) == slot(&stale));
    assert!(reused, "the slot of {stale} is used again, or this test shows nothing");
    assert!(others.iter().all(|(_, other)| server.channel_of(*other) != stale), "never the same name");
    let done = server.cli(&["kick", &target]);
    assert_eq!(done.code, Some(3), "{done:?}");
    for (other, _) in &mut others {
        other.quiet();
    }
    assert_eq!(server.home.online(), 4);
}

#[test]
fn a_channel_that_is_already_offline_matches_nothing() {
    let server = Server::start(&ENDLESS_GRACE);
    let (mut client, id) = server.user("alice");
    let target = format!("#{}", server.channel_of(id));
    assert_eq!(server.cli(&["kick", &target, "--wait"]).code, Some(0));
    client.expect_goodbye("kicked");
    client.expect_end();
    for target in [target.as_str(), &id.to_string(), "alice", "@alice", "all", "ip:127.0.0.1"] {
        let done = server.cli(&["kick", target, "--wait"]);
        assert_eq!(done.code, Some(3), "{target}: {done:?}");
    }
    let done = server.cli(&["kick", "alice", "--json"]);
    assert_eq!((done.code, done.stdout.trim_end()), (Some(3), r#"{"kicked":[]}"#), "{done:?}");
    assert_eq!(server.home.departures(id).len(), 1);
}

#[test]
fn every_form_of_a_target_finds_its_channels_and_no_others() {
    let server = Server::start(&[]);
    let mut users: Vec<_> = (0..12).map(|n| server.user(&format!("user {n}"))).collect();
    let (mut all, all_id) = server.user("all");
    let (mut odd, odd_id) = server.user("ip:127.0.0.1");
    let mut gone = Vec::new();
    let by_channel = format!("#{}", server.channel_of(users[1].1));
    let by_id = users[0].1.to_string();
    for (target, index) in [(by_id.as_str(), 0), (&by_channel, 1), ("user 2", 2), ("@user 3", 3)] {
        let receipt = server.cli_json(&["kick", target, "--wait"]);
        let kicked = receipt["kicked"].as_array().unwrap();
        assert_eq!(kicked.len(), 1, "{target}: {receipt}");
        assert_eq!(kicked[0]["user"], users[index].1, "{target}: {receipt}");
        users[index].0.expect_goodbye("kicked");
        users[index].0.expect_end();
        gone.push(index);
    }
    server.cli_json(&["kick", "@all", "--wait"]);
    all.expect_goodbye("kicked");
    server.cli_json(&["kick", "@ip:127.0.0.1", "--wait"]);
    odd.expect_goodbye("kicked");
    assert_eq!((server.home.state(all_id), server.home.state(odd_id)), ("offline".into(), "offline".into()));
    for (index, (client, id)) in users.iter_mut().enumerate() {
        if !gone.contains(&index) {
            client.quiet();
            assert_eq!(server.home.state(*id), "online");
        }
    }
    let two = [users[4].1.to_string(), users[5].1.to_string()];
    let receipt = server.cli_json(&["kick", &two[0], &two[1], &two[0], "--wait"]);
    assert_eq!(receipt["kicked"].as_array().unwrap().len(), 2, "each channel once: {receipt}");
    let mut nobody_yet = Client::connect(&server);
    eventually("the new channel is known", || server.channel_with(&nobody_yet).is_some());
    assert_eq!(server.cli(&["kick", "ip:10.0.0.0/8"]).code, Some(3));
    let receipt = server.cli_json(&["kick", "ip:127.0.0.0/8", "--wait"]);
    let kicked = receipt["kicked"].as_array().unwrap();
    assert_eq!(kicked.len(), 7, "{receipt}");
    let unknown: Vec<_> = kicked.iter().filter(|entry| entry["user"].is_null()).collect();
    assert_eq!(unknown.len(), 1, "the one before login: {receipt}");
    assert!(unknown[0]["name"].is_null());
    nobody_yet.expect_goodbye("kicked");
    nobody_yet.expect_end();
    assert_eq!(server.home.online(), 0);
}

#[test]
fn kick_all_and_kick_idle_find_whom_they_should() {
    let server = Server::start(&[]);
    let (mut sleeper, sleeper_id) = server.user("sleeper");
    let idle_ms = |id: i64| server.live_channel(id).unwrap()["idle_ms"].as_u64().unwrap();
    eventually("the sleeper has been idle for a while", || idle_ms(sleeper_id) >= 1200);
    let (mut awake, awake_id) = server.user("awake");
    server.cli_json(&["kick", "idle:1s", "--wait"]);
    sleeper.expect_goodbye("kicked");
    awake.quiet();
    server.cli_json(&["kick", "all", "--wait"]);
    awake.expect_goodbye("kicked");
    assert_eq!(
        (server.home.state(sleeper_id), server.home.state(awake_id)),
        ("offline".into(), "offline".into())
    );
}

#[test]
fn a_user_marked_online_without_a_channel_is_set_offline_by_a_kick() {
    let server = Server::start(&[]);
    let [ghost] = server.absent(["ghost"]);
    let other_process = server.home.db_to_write();
    other_process.execute("UPDATE user SET state = 'online' WHERE id = ?1", [ghost]).unwrap();
    let done = server.cli(&["kick", &ghost.to_string(), "--wait"]);
    assert_eq!(done.code, Some(0), "a match: {done:?}");
    assert_eq!(server.home.state(ghost), "offline");
    server.back(ghost).quiet();
}

#[test]
fn a_kick_of_a_user_who_cannot_be_set_offline_fails_and_takes_the_others_offline_all_the_same() {
    let server = Server::start(&[]);
    let [ghost] = server.absent(["ghost"]);
    let (mut alice, _) = server.user("alice");
    let (mut bob, _) = server.user("bob");
    let other_process = server.home.db_to_write();
    let forbid = format!(
        "CREATE TRIGGER forbid BEFORE UPDATE OF state ON user WHEN NEW.id = {ghost} AND NEW.state = 'offline'
         BEGIN SELECT RAISE(ABORT, 'forbidden'); END"
    );
    other_process.execute("UPDATE user SET state = 'online' WHERE id = ?1", [ghost]).unwrap();
    other_process.execute_batch(&forbid).unwrap();
    let failed = server.cli(&["kick", "alice", "ghost", "bob"]);
    one_line(&failed, 1);
    for part in ["ghost has no channel", "still marked online", "linger.db: forbidden", "kick again"] {
        assert!(failed.stderr.contains(part), "{part}: {failed:?}");
    }
    alice.expect_goodbye("kicked");
    bob.expect_goodbye("kicked");
    assert_eq!(server.home.state(ghost), "online");
    other_process.execute_batch("DROP TRIGGER forbid").unwrap();
    assert_eq!(server.cli(&["kick", "ghost"]).code, Some(0));
    assert_eq!(server.home.state(ghost), "offline");
}

#[test]
fn messages_not_handed_over_go_back_to_the_box_in_order() {
    const SENT: u64 = 100;
    let server = Server::start(&["--grace", "1h", "--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let mut bob = Client::with_small_window(&server);
    bob.login(bob_id);
    let text = "x".repeat(BULK_BYTES);
    for n in 0..SENT {
        alice.chat_numbered(bob_id, n, &text);
    }
    fill(&server, &alice, bob_id);
    server.cli_json(&["kick", &bob_id.to_string(), "--wait"]);
    alice.chat_numbered(bob_id, SENT, "newer");
    for _ in 0..=SENT {
        let answer = alice.hear();
        assert_eq!(
            (&answer["errno"], &answer["re"]),
            (&json!(0), &json!(6)),
            "safe one way or the other: {answer}"
        );
    }

    let mut heard = bob.hear_to_the_end();
    let goodbye = heard.pop().unwrap();
    assert_eq!((&goodbye["msgid"], &goodbye["reason"]), (&json!(20), &json!("kicked")));
    let delivered = heard.len() as u64;
    assert!(0 < delivered && delivered < SENT, "some came and some did not: {delivered}");
    let mut again = Client::connect(&server);
    heard.extend(again.login_and_collect(bob_id, (SENT + 1 - delivered) as usize));
    assert_eq!(numbers(&heard), (0..=SENT).collect::<Vec<_>>(), "whole, in order, each once");
    again.quiet();

    let account = || server.home.departures(bob_id)[0].clone();
    eventually("the account is settled", || account().saved.is_some_and(|saved| saved > 0));
    assert_eq!(account().lost.unwrap_or(0), 0);
    assert!(account().delivered.is_some_and(|count| count > 0), "{:?}", account());
}

#[test]
fn messages_not_handed_over_survive_a_close_by_the_reader_too() {
    const SENT: u64 = 60;
    let server = Server::start(&["--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let mut bob = Client::with_small_window(&server);
    bob.login(bob_id);
    let text = "x".repeat(BULK_BYTES);
    for n in 0..SENT {
        alice.chat_numbered(bob_id, n, &text);
    }
    fill(&server, &alice, bob_id);
    bob.reset();
    for _ in 0..SENT {
        assert_eq!(alice.hear()["errno"], 0);
    }
    let mut again = Client::connect(&server);
    let kept = numbers(&unpack(&again.login(bob_id), "offlinemsg"));
    assert!(!kept.is_empty(), "what was not handed to the kernel is kept");
    let first = kept[0];
    let mut heard = kept;
    while heard.last() != Some(&(SENT - 1)) {
        heard.push(again.hear()["n"].as_u64().unwrap());
    }
    assert_eq!(heard, (first..SENT).collect::<Vec<_>>(), "in order, without a gap");
    again.quiet();
}

#[test]
fn a_takeover_hands_the_unread_messages_to_the_new_channel() {
    const SENT: u64 = 80;
    let server = Server::start(&["--workers", "2", "--grace", "1h"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let mut old = Client::with_small_window(&server);
    old.login(bob_id);
    let text = "x".repeat(BULK_BYTES);
    for n in 0..SENT {
        alice.chat_numbered(bob_id, n, &text);
    }
    fill(&server, &alice, bob_id);
    let mut new = Client::connect(&server);
    let mut later = unpack(&new.login(bob_id), "offlinemsg");
    while later.last().is_none_or(|message| message["n"] != SENT - 1) {
        later.push(new.hear());
    }
    let mut heard = old.hear_to_the_end();
    assert_eq!(heard.pop().unwrap()["reason"], "replaced");
    heard.extend(later);
    assert_eq!(numbers(&heard), (0..SENT).collect::<Vec<_>>(), "whole, in order, each once");
    new.quiet();
}

#[test]
fn a_storm_of_leavers_is_drained_and_leaks_neither_ids_nor_fds() {
    const STORM: usize = 300;
    let server = Server::start(&["--grace", "0s", "--workers", "2"]);
    let mut registrar = Client::connect(&server);
    let ids: Vec<_> = (0..STORM).map(|n| registrar.register(&format!("user {n}"))).collect();
    let fds = server.fds();
    drop(registrar);
    let clients: Vec<_> = ids.iter().map(|id| server.back(*id)).collect();
    assert_eq!(server.home.online(), STORM as i64);
    for (n, client) in clients.into_iter().enumerate() {
        if n % 2 == 0 { drop(client) } else { client.reset() }
    }
    eventually("everybody is offline", || server.home.online() == 0);
    eventually("every id is free", || server.channels().is_empty());
    eventually("every fd is closed", || server.fds() <= fds);
    for id in ids {
        assert_eq!(server.home.departures(id).len(), 1);
    }
    let queue = server.cli_json(&["queue"]);
    assert_eq!((&queue["depth"], &queue["lingering"]), (&json!(0), &json!(0)), "{queue}");
}
