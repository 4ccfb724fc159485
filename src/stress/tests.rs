//! Every scenario against a server with one bug: the report has to show it.

use clap::{CommandFactory, Parser};

use super::mock_server::{Bug, MockServer};
use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// Without processes: they would run this program, which has no `stress receive`.
const CHAOS: &str = "chaos --seconds 1 --seed 5 --processes 0 --blow-ms 5 --slow-ms 5 --size 100";

/// The same without faults: a sender that is disconnected may forget the one chat that a bug concerns.
const CALM_CHAOS: &str = "chaos --seconds 1 --seed 5 --processes 0 --blow-ms 100000 --slow-ms 5 --size 100";

/// A small flood whose bounds any machine keeps.
const FLOOD: &str = "flood --registrations 40 --members 5 --chats 20 --size 100 --many-members 8 --small-chats 20 \
    --bound 10s --first-login 10s --memory 64GiB";

/// Runs a scenario, without progress, against a server with one fault.
fn stress(bug: Bug, command: &str) -> Report {
    let server = MockServer::start(bug);
    let (target, data) = (server.address().to_string(), server.data().display().to_string());
    let words = ["stress"].into_iter().chain(command.split(' '));
    let words = words.chain(["--json", "--clients", "20", "--target", &target, "--data", &data]);
    let args = Command::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args;
    examine(&args).unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn failures(bug: Bug, command: &str) -> Vec<Failure> {
    stress(bug, command).failures
}

#[test]
fn a_server_that_does_right_gets_a_good_verdict_in_every_scenario() {
    for command in [
        "vanish",
        "vanish --how half",
        "kick",
        "kick --bulk 7",
        "churn --seconds 1",
        "relay --seconds 1 --window 4",
        "keep --seconds 1 --window 4",
        "storm --seconds 1 --bound 10s",
        "storm --seconds 1 --bound 10s --how half --pairs 1",
        CHAOS,
        FLOOD,
    ] {
        assert_eq!(failures(Bug::None, command), [], "{command}");
    }
}

#[test]
fn vanish_finds_users_left_online() {
    let failures = failures(Bug::ForgetsOneOffline, "vanish");
    assert!(
        matches!(
            failures[..],
            [Failure::StillOnline { count: 1, .. }, Failure::Departures { sessions: 20, departures: 19 }]
        ),
        "{failures:?}"
    );
}

#[test]
fn vanish_finds_a_leaked_id() {
    let failures = failures(Bug::LeaksAnId, "vanish");
    assert!(matches!(failures[..], [Failure::IdsLeaked { count: 1, .. }]), "{failures:?}");
}

#[test]
fn vanish_finds_a_leaked_fd() {
    assert_eq!(failures(Bug::LeaksAnFd, "vanish"), [Failure::FdsLeaked(1)]);
}

#[test]
fn vanish_finds_a_double_departure() {
    let found = failures(Bug::DepartsTwice, "vanish");
    assert_eq!(found, [Failure::Departures { sessions: 20, departures: 21 }]);
}

#[test]
fn every_scenario_asks_whether_the_server_has_found_a_difference() {
    for command in ["vanish", "kick", "churn --seconds 1", "relay --seconds 1 --window 4"] {
        assert_eq!(failures(Bug::FindsADifference, command), [Failure::Differences(1)], "{command}");
    }
}

#[test]
fn kick_finds_a_client_that_was_told_nothing() {
    assert_eq!(failures(Bug::TellsOneNothing, "kick"), [Failure::ToldNothing(1)]);
}

#[test]
fn kick_finds_a_stream_without_an_end() {
    assert_eq!(failures(Bug::EndsNoStream, "kick"), [Failure::NoEnd(20)]);
}

#[test]
fn kick_finds_a_bystander_who_was_touched() {
    let failures = failures(Bug::KicksABystander, "kick");
    assert!(failures.contains(&Failure::Bystanders(1)), "{failures:?}");
}

#[test]
fn kick_finds_a_wait_that_returns_too_early() {
    let failures = failures(Bug::WaitsForNothing, "kick");
    assert!(matches!(failures[0], Failure::OnlineAfterWait(_)), "{failures:?}");
}

#[test]
fn churn_finds_a_refused_login() {
    let failures = failures(Bug::RefusesALogin, "churn --seconds 1");
    assert!(matches!(failures[..], [Failure::Refused { count: 1, .. }]), "{failures:?}");
}

#[test]
fn relay_finds_a_lost_chat() {
    let failures = failures(Bug::LosesAChat, "relay --seconds 1 --window 4");
    assert!(failures.contains(&Failure::Lost(1)), "{failures:?}");
}

#[test]
fn relay_finds_chats_out_of_order() {
    let failures = failures(Bug::SwapsTwoChats, "relay --seconds 1 --window 4");
    assert_eq!(failures, [Failure::Reordered(2)]);
}

/// What `chaos` says against a server with one fault: what chats did that no chat may do.
fn wrongs(bug: Bug, command: &str) -> Vec<&'static str> {
    let wrong = |failure| match failure {
        Failure::Chats { violation, .. } => Some(violation),
        _ => None,
    };
    failures(bug, command).into_iter().filter_map(wrong).collect()
}

#[test]
fn chaos_finds_a_lost_chat_and_shows_it_with_the_seed() {
    let report = stress(Bug::LosesAChat, CALM_CHAOS);
    let [Failure::Chats { count: 1, seed: 5, example, .. }] = &report.failures[..] else {
        panic!("{:?}", report.failures)
    };
    assert!(example.contains("never taken"), "{example}");
    assert!(report.table().contains(example), "{}", report.table());
}

#[test]
fn chaos_finds_a_doubled_chat() {
    assert_eq!(wrongs(Bug::DoublesAChat, CALM_CHAOS), ["received under two numbers"]);
}

#[test]
fn chaos_finds_a_repetition_that_is_taken_for_a_new_chat() {
    assert_eq!(wrongs(Bug::ForgetsWhatItAccepted, CHAOS)[0], "received under two numbers");
}

#[test]
fn chaos_finds_swapped_chats() {
    assert_eq!(wrongs(Bug::SwapsTwoChats, CALM_CHAOS), ["received out of order"]);
}

#[test]
fn chaos_finds_a_number_that_does_not_rise() {
    let wrongs = wrongs(Bug::LowersANumber, CALM_CHAOS);
    let lowered = "received under a number below one before";
    assert_eq!(wrongs, ["confirmed to their senders and never received", lowered]);
}

#[test]
fn chaos_finds_repetitions_without_the_mark() {
    assert_eq!(wrongs(Bug::ForgetsTheMark, CHAOS), ["received again without the mark"]);
}

#[test]
fn chaos_finds_confirmations_that_are_forgotten() {
    assert_eq!(
        wrongs(Bug::ForgetsConfirmations, CHAOS),
        ["confirmed by their receivers and received once more"]
    );
}

#[test]
fn chaos_finds_a_chat_that_is_never_answered() {
    let failures = failures(Bug::AnswersNoChat, "chaos --seconds 4 --processes 0 --blow-ms 100000");
    assert!(matches!(failures[..], [Failure::Errors { count: 1, .. }]), "{failures:?}");
}

#[test]
fn keep_finds_a_chat_that_was_answered_and_is_not_there() {
    let failures = failures(Bug::LosesAChat, "keep --seconds 1 --window 4");
    assert!(
        matches!(failures[..], [Failure::NotKept { answered, kept }] if answered == kept + 1),
        "{failures:?}"
    );
}

#[test]
fn storm_finds_users_left_online() {
    let failures = failures(Bug::ForgetsOneOffline, "storm --seconds 1 --bound 10s");
    assert!(
        matches!(failures[..], [Failure::StillOnline { count: 1, .. }, Failure::Departures { .. }, ..]),
        "{failures:?}"
    );
}

#[test]
fn storm_finds_a_lost_chat() {
    let failures = failures(Bug::LosesAChat, "storm --seconds 1 --bound 10s");
    assert!(failures.contains(&Failure::Lost(1)), "{failures:?}");
}

#[test]
fn storm_finds_a_leaked_id() {
    let failures = failures(Bug::LeaksAnId, "storm --seconds 1 --bound 10s");
    assert!(matches!(failures[..], [Failure::IdsLeaked { count: 1, .. }]), "{failures:?}");
}

#[test]
fn storm_finds_a_kick_that_tells_nothing() {
    let failures = failures(Bug::TellsOneNothing, "storm --seconds 1 --bound 10s");
    assert_eq!(failures, [Failure::ToldNothing(1)]);
}

#[test]
fn storm_finds_chats_that_wait_for_lost_clients() {
    let failures = failures(Bug::StallsAtEachLoss, "storm --seconds 1 --bound 10ms");
    assert!(
        failures.iter().any(|f| matches!(f, Failure::Slow { what, .. } if what == "chat_storm")),
        "{failures:?}"
    );
}

/// What takes too long during a flood, against a server with one fault, by the bound named behind it.
fn slow(bug: Bug, bound: &str) -> Vec<String> {
    let slow = |failure| match failure {
        Failure::Slow { what, .. } => Some(what),
        _ => None,
    };
    failures(bug, &FLOOD.replace(&format!("{bound} 10s"), &format!("{bound} 10ms")))
        .into_iter()
        .filter_map(slow)
        .collect()
}

#[test]
fn flood_finds_first_logins_that_wait() {
    assert_eq!(slow(Bug::MakesFirstLoginsWait, "--first-login"), ["first_login"]);
}

#[test]
fn flood_finds_bystanders_who_wait() {
    let slow = slow(Bug::StallsAtEachGroupChat, "--bound");
    assert!(slow.iter().any(|what| what == "groups_chat_flood"), "{slow:?}");
}

#[test]
fn flood_finds_memory_that_grows() {
    let command = FLOOD.replace("64GiB", "32MiB");
    let failures = failures(Bug::GrowsAtAGroupChat, &command);
    assert!(
        failures.iter().any(|failure| matches!(failure, Failure::Grew { what: "groups", .. })),
        "{failures:?}"
    );
}

#[test]
fn flood_finds_a_copy_that_is_not_kept() {
    let failures = failures(Bug::LosesACopy, FLOOD);
    assert!(
        matches!(failures[..], [Failure::NotKept { answered, kept }] if answered == kept + 1),
        "{failures:?}"
    );
}

#[test]
fn users_of_an_earlier_run_are_used_again() {
    let server = MockServer::start(Bug::None);
    let (target, data) = (server.address().to_string(), server.data().display().to_string());
    let words = ["stress", "vanish", "--json", "--clients", "3", "--target", &target, "--data", &data];
    let args = Command::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args;
    for _ in 0..2 {
        assert!(examine(&args).unwrap().failures.is_empty());
    }
    assert_eq!(server.users(), 3);
}

#[test]
fn without_a_server_the_error_names_the_socket() {
    let words = ["stress", "vanish", "--json", "--data", "/nonexistent"];
    let args = Command::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args;
    let error = examine(&args).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/control.sock: "), "{error}");
}

#[test]
fn the_options_are_declared_without_contradiction() {
    Command::command().debug_assert();
}
