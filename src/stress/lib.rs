//! Load and faults against a running server, from outside, with a verdict.
//!
//! A scenario plays clients over TCP, asks the control socket, and reads the database. It shares no code with the
//! server's protocol or state, so that a mistake there cannot hide itself here. All runs in the calling thread,
//! except that `kick` asks for kicks from a second one, `storm` and `flood` do so from a third beside what happens, and some
//! receivers of `chaos` are processes.
//!
//! | module | duty |
//! |---|---|
//! | `client` | what a client says and hears |
//! | `poller` | the kernel's epoll |
//! | `fleet` | many clients in one thread |
//! | `login` | brings a fleet online |
//! | `control`, `view` | the server as seen from outside |
//! | `aftermath` | what must be true after clients left |
//! | `vanish`, `kick`, `churn`, `relay`, `keep`, `storm`, `chaos`, `flood` | the scenarios |
//! | `bystanders` | clients who must notice nothing of what happens beside them |
//! | `own_server` | a server that the scenario starts itself |
//! | `ways`, `stamp`, `seed` | how clients leave, what a chat says, chance that repeats |
//! | `report`, `fault`, `progress` | what is told to people |

mod aftermath;
mod bystanders;
mod chaos;
mod churn;
mod client;
mod control;
#[cfg(test)]
mod fake;
mod fault;
mod fleet;
mod flood;
mod keep;
mod kick;
mod login;
mod own_server;
mod poller;
mod progress;
mod relay;
mod report;
mod seed;
mod stamp;
mod storm;
mod vanish;
mod view;
mod ways;

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use chaos::ChaosArgs;
pub use chaos::receive::ReceiveArgs;
pub use fault::{Failure, StressError};
pub use flood::FloodArgs;
pub use report::Verdict;

use jiff::{Span, SpanRelativeTo};
use login::Names;
use progress::Progress;
use report::Report;
use view::View;

/// What `linger stress` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do to the server.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// A scenario, with its options.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Scenario {
    /// Everybody is online, then everybody is gone at once.
    Vanish(VanishArgs),
    /// Lanes connect, log in and leave, again and again.
    Churn(ChurnArgs),
    /// Everybody is online and is kicked over the control socket.
    Kick(KickArgs),
    /// Pairs exchange chats as fast as a window allows.
    Relay(RelayArgs),
    /// Users write with `seq` to users who are away, and each answer means that the message is on the disk.
    Keep(KeepArgs),
    /// A crowd is lost at once while others chat, log in and are kicked.
    Storm(StormArgs),
    /// Chats with confirmations on both ends, while a hand kills, kicks and takes over.
    Chaos(ChaosArgs),
    /// Registrations, receivers, groups and a full log pipe, while bystanders chat, log in and are kicked.
    Flood(FloodArgs),
    /// A receiver of `chaos` in a process of its own; started by it.
    #[command(hide = true)]
    Receive(ReceiveArgs),
}

/// What every scenario takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Where the server speaks JSON.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6000", value_parser = resolve)]
    pub target: SocketAddr,

    /// The server's data directory.
    #[arg(long, value_name = "DIR", env = "LINGER_DATA", default_value = "linger-data")]
    pub data: PathBuf,

    /// How many clients [default: storm 10000, vanish and kick 1000, relay and keep 100, flood 64, churn 50, chaos 16].
    #[arg(long, value_name = "N")]
    pub clients: Option<NonZeroUsize>,

    /// What the names of the users made for this begin with; they are kept and used again.
    #[arg(long, value_name = "WORD", default_value = "stress", value_parser = word)]
    pub prefix: String,

    /// The same seed makes the same choices.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Print one JSON document instead of a table; nothing when the verdict is bad.
    #[arg(long)]
    pub json: bool,
}

/// Options of `vanish`.
#[derive(Clone, Debug, clap::Args)]
pub struct VanishArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// How clients go: an ordinary close, a reset, a half close, or all of them.
    #[arg(long, value_enum, default_value_t = How::Mix)]
    pub how: How,
}

/// Options of `churn`.
#[derive(Clone, Debug, clap::Args)]
pub struct ChurnArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// How clients go; `half` closes like `fin` here.
    #[arg(long, value_enum, default_value_t = How::Mix)]
    pub how: How,
}

/// Options of `kick`.
#[derive(Clone, Debug, clap::Args)]
pub struct KickArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// How many are kicked by one request.
    #[arg(long, value_name = "N", default_value = "1")]
    pub bulk: NonZeroUsize,
}

/// Options of `relay`.
#[derive(Clone, Debug, clap::Args)]
pub struct RelayArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// Chats under way in each direction of a pair.
    #[arg(long, value_name = "W", default_value = "1")]
    pub window: NonZeroUsize,

    /// Bytes of a chat's text.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
}

/// Options of `keep`.
#[derive(Clone, Debug, clap::Args)]
pub struct KeepArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// Chats of each sender without an answer.
    #[arg(long, value_name = "W", default_value = "1")]
    pub window: NonZeroUsize,

    /// Bytes of a chat's text.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
}

/// Options of `storm`.
#[derive(Clone, Debug, clap::Args)]
pub struct StormArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// How the crowd goes.
    #[arg(long, value_enum, default_value_t = How::Rst)]
    pub how: How,

    /// Pairs who chat meanwhile; every second one asks for answers.
    #[arg(long, value_name = "N", default_value = "4")]
    pub pairs: NonZeroUsize,

    /// For how long they do so before the storm, to compare.
    #[arg(long, value_name = "S", default_value_t = 3)]
    pub seconds: u64,

    /// What 99 of 100 of their chats must stay within.
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = bound)]
    pub bound: Duration,
}

/// How clients go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum How {
    /// An ordinary close.
    Fin,
    /// A reset.
    Rst,
    /// The client ends its own side and waits for the server to end the other.
    Half,
    /// Each by chance.
    Mix,
}

/// The longest prefix, in bytes: with the scenario and a number it stays below the 64 characters of a name.
const MAX_PREFIX_BYTES: usize = 32;

/// Runs the scenario and prints what it found on stdout. The verdict says whether the server did right.
///
/// # Errors
/// When the scenario could not be carried through; nothing about the server is shown by that.
pub fn run(args: &Args) -> Result<Verdict, StressError> {
    let (report, json) = (examine(args)?, args.scenario.parts().1.json);
    print(&report, json).map_err(StressError::Report)?;
    Ok(report.into_verdict())
}

fn examine(args: &Args) -> Result<Report, StressError> {
    let (name, common) = args.scenario.parts();
    let names = Names(format!("{}-{name}-", common.prefix));
    let view = || View::open(&common.data, &names.0);
    let mut progress = Progress::new(common.json);
    let mut report = Report::new(name);
    match &args.scenario {
        Scenario::Vanish(args) => vanish::run(args, &view()?, &names, &mut progress, &mut report),
        Scenario::Churn(args) => churn::run(args, &view()?, &names, &mut progress, &mut report),
        Scenario::Kick(args) => kick::run(args, &view()?, &names, &mut progress, &mut report),
        Scenario::Relay(args) => relay::run(args, &view()?, &names, &mut progress, &mut report),
        Scenario::Keep(args) => keep::run(args, &view()?, &names, &mut progress, &mut report),
        Scenario::Storm(args) => storm::run(args, &view()?, &names, &mut progress, &mut report),
        // It may have to start the server first, and looks at nothing but its clients.
        Scenario::Chaos(args) => chaos::run(args, &names, &mut progress, &mut report),
        // The same.
        Scenario::Flood(args) => flood::run(args, &names, &mut progress, &mut report),
        Scenario::Receive(args) => chaos::receive::run(args),
    }?;
    Ok(report)
}

impl Scenario {
    fn parts(&self) -> (&'static str, &Common) {
        match self {
            Self::Vanish(args) => ("vanish", &args.common),
            Self::Churn(args) => ("churn", &args.common),
            Self::Kick(args) => ("kick", &args.common),
            Self::Relay(args) => ("relay", &args.common),
            Self::Keep(args) => ("keep", &args.common),
            Self::Storm(args) => ("storm", &args.common),
            Self::Chaos(args) => ("chaos", &args.common),
            Self::Flood(args) => ("flood", &args.common),
            Self::Receive(args) => ("receive", &args.common),
        }
    }
}

impl Common {
    fn clients(&self, default: usize) -> usize {
        self.clients.map_or(default, NonZeroUsize::get)
    }
}

/// A bad verdict is a failure, and stdout stays empty on failure where it was asked for JSON.
fn print(report: &Report, json: bool) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    match json {
        true if report.failures.is_empty() => writeln!(stdout, "{}", report.json())?,
        true => {}
        false => write!(stdout, "{}", report.table())?,
    }
    stdout.flush()
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "no such host".to_owned())
}

fn bound(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let length = span.ok().and_then(|length| Duration::try_from(length).ok());
    length.ok_or_else(|| "a duration, such as 50ms".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "a size, such as 64MiB".to_owned())
}

fn word(text: &str) -> Result<String, String> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if text.is_empty() || text.len() > MAX_PREFIX_BYTES || !is_word {
        return Err(format!("1 to {MAX_PREFIX_BYTES} letters, digits, '-' or '_'"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::fake::{Fake, Fault};
    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    /// Without processes, for this program is not the one that they would be.
    const CHAOS: &str = "chaos --seconds 1 --seed 5 --processes 0 --blow-ms 5 --slow-ms 5 --size 100";

    /// The same with a hand that rests: a sender that is struck may forget the one chat that a fault meets.
    const CALM_CHAOS: &str =
        "chaos --seconds 1 --seed 5 --processes 0 --blow-ms 100000 --slow-ms 5 --size 100";

    /// A small flood whose bounds any machine keeps.
    const FLOOD: &str = "flood --registrations 40 --members 5 --chats 20 --size 100 --many-members 8 --small-chats 20 \
        --bound 10s --first-login 10s --memory 64GiB";

    /// Runs a scenario, without progress, against a server with one fault.
    fn stress(fault: Fault, command: &str) -> Report {
        let fake = Fake::start(fault);
        let (target, data) = (fake.address().to_string(), fake.data().display().to_string());
        let words = ["stress"].into_iter().chain(command.split(' '));
        let words = words.chain(["--json", "--clients", "20", "--target", &target, "--data", &data]);
        let args = Command::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args;
        examine(&args).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    fn failures(fault: Fault, command: &str) -> Vec<Failure> {
        stress(fault, command).failures
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
            assert_eq!(failures(Fault::None, command), [], "{command}");
        }
    }

    #[test]
    fn vanish_finds_users_left_online() {
        let failures = failures(Fault::ForgetsOneOffline, "vanish");
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
        let failures = failures(Fault::LeaksAnId, "vanish");
        assert!(matches!(failures[..], [Failure::IdsLeaked { count: 1, .. }]), "{failures:?}");
    }

    #[test]
    fn vanish_finds_a_leaked_fd() {
        assert_eq!(failures(Fault::LeaksAnFd, "vanish"), [Failure::FdsLeaked(1)]);
    }

    #[test]
    fn vanish_finds_a_double_departure() {
        let found = failures(Fault::DepartsTwice, "vanish");
        assert_eq!(found, [Failure::Departures { sessions: 20, departures: 21 }]);
    }

    #[test]
    fn every_scenario_asks_whether_the_server_has_found_a_difference() {
        for command in ["vanish", "kick", "churn --seconds 1", "relay --seconds 1 --window 4"] {
            assert_eq!(failures(Fault::FindsADifference, command), [Failure::Differences(1)], "{command}");
        }
    }

    #[test]
    fn kick_finds_a_client_that_was_told_nothing() {
        assert_eq!(failures(Fault::TellsOneNothing, "kick"), [Failure::ToldNothing(1)]);
    }

    #[test]
    fn kick_finds_a_stream_without_an_end() {
        assert_eq!(failures(Fault::EndsNoStream, "kick"), [Failure::NoEnd(20)]);
    }

    #[test]
    fn kick_finds_a_bystander_who_was_touched() {
        let failures = failures(Fault::KicksABystander, "kick");
        assert!(failures.contains(&Failure::Bystanders(1)), "{failures:?}");
    }

    #[test]
    fn kick_finds_a_wait_that_returns_too_early() {
        let failures = failures(Fault::WaitsForNothing, "kick");
        assert!(matches!(failures[0], Failure::OnlineAfterWait(_)), "{failures:?}");
    }

    #[test]
    fn churn_finds_a_refused_login() {
        let failures = failures(Fault::RefusesALogin, "churn --seconds 1");
        assert!(matches!(failures[..], [Failure::Refused { count: 1, .. }]), "{failures:?}");
    }

    #[test]
    fn relay_finds_a_lost_chat() {
        let failures = failures(Fault::LosesAChat, "relay --seconds 1 --window 4");
        assert!(failures.contains(&Failure::Lost(1)), "{failures:?}");
    }

    #[test]
    fn relay_finds_chats_out_of_order() {
        let failures = failures(Fault::SwapsTwoChats, "relay --seconds 1 --window 4");
        assert_eq!(failures, [Failure::Reordered(2)]);
    }

    /// What `chaos` says against a server with one fault: what chats did that no chat may do.
    fn wrongs(fault: Fault, command: &str) -> Vec<&'static str> {
        let wrong = |failure| match failure {
            Failure::Ledger { wrong, .. } => Some(wrong),
            _ => None,
        };
        failures(fault, command).into_iter().filter_map(wrong).collect()
    }

    #[test]
    fn chaos_finds_a_lost_chat_and_tells_its_story_and_the_seed() {
        let report = stress(Fault::LosesAChat, CALM_CHAOS);
        let [Failure::Ledger { count: 1, seed: 5, example, .. }] = &report.failures[..] else {
            panic!("{:?}", report.failures)
        };
        assert!(example.contains("never taken"), "{example}");
        assert!(report.table().contains(example), "{}", report.table());
    }

    #[test]
    fn chaos_finds_a_doubled_chat() {
        assert_eq!(wrongs(Fault::DoublesAChat, CALM_CHAOS), ["received under two numbers"]);
    }

    #[test]
    fn chaos_finds_a_repetition_that_is_taken_for_a_new_chat() {
        assert_eq!(wrongs(Fault::ForgetsWhatItAccepted, CHAOS)[0], "received under two numbers");
    }

    #[test]
    fn chaos_finds_swapped_chats() {
        assert_eq!(wrongs(Fault::SwapsTwoChats, CALM_CHAOS), ["received out of order"]);
    }

    #[test]
    fn chaos_finds_a_number_that_does_not_rise() {
        let wrongs = wrongs(Fault::LowersANumber, CALM_CHAOS);
        let lowered = "received under a number below one before";
        assert_eq!(wrongs, ["confirmed to their senders and never received", lowered]);
    }

    #[test]
    fn chaos_finds_repetitions_without_the_mark() {
        assert_eq!(wrongs(Fault::ForgetsTheMark, CHAOS), ["received again without the mark"]);
    }

    #[test]
    fn chaos_finds_confirmations_that_are_forgotten() {
        assert_eq!(
            wrongs(Fault::ForgetsConfirmations, CHAOS),
            ["confirmed by their receivers and received once more"]
        );
    }

    #[test]
    fn chaos_finds_a_chat_that_is_never_answered() {
        let failures = failures(Fault::AnswersNoChat, "chaos --seconds 4 --processes 0 --blow-ms 100000");
        assert!(matches!(failures[..], [Failure::Errors { count: 1, .. }]), "{failures:?}");
    }

    #[test]
    fn keep_finds_a_chat_that_was_answered_and_is_not_there() {
        let failures = failures(Fault::LosesAChat, "keep --seconds 1 --window 4");
        assert!(
            matches!(failures[..], [Failure::NotKept { answered, kept }] if answered == kept + 1),
            "{failures:?}"
        );
    }

    #[test]
    fn storm_finds_users_left_online() {
        let failures = failures(Fault::ForgetsOneOffline, "storm --seconds 1 --bound 10s");
        assert!(
            matches!(failures[..], [Failure::StillOnline { count: 1, .. }, Failure::Departures { .. }, ..]),
            "{failures:?}"
        );
    }

    #[test]
    fn storm_finds_a_lost_chat() {
        let failures = failures(Fault::LosesAChat, "storm --seconds 1 --bound 10s");
        assert!(failures.contains(&Failure::Lost(1)), "{failures:?}");
    }

    #[test]
    fn storm_finds_a_leaked_id() {
        let failures = failures(Fault::LeaksAnId, "storm --seconds 1 --bound 10s");
        assert!(matches!(failures[..], [Failure::IdsLeaked { count: 1, .. }]), "{failures:?}");
    }

    #[test]
    fn storm_finds_a_kick_that_tells_nothing() {
        let failures = failures(Fault::TellsOneNothing, "storm --seconds 1 --bound 10s");
        assert_eq!(failures, [Failure::ToldNothing(1)]);
    }

    #[test]
    fn storm_finds_chats_that_wait_for_the_crowd() {
        let failures = failures(Fault::StallsAtEachLoss, "storm --seconds 1 --bound 10ms");
        assert!(
            failures.iter().any(|f| matches!(f, Failure::Slow { what, .. } if what == "chat_storm")),
            "{failures:?}"
        );
    }

    /// What takes too long during a flood, against a server with one fault, by the bound named behind it.
    fn slow(fault: Fault, bound: &str) -> Vec<String> {
        let slow = |failure| match failure {
            Failure::Slow { what, .. } => Some(what),
            _ => None,
        };
        failures(fault, &FLOOD.replace(&format!("{bound} 10s"), &format!("{bound} 10ms")))
            .into_iter()
            .filter_map(slow)
            .collect()
    }

    #[test]
    fn flood_finds_first_logins_that_wait() {
        assert_eq!(slow(Fault::MakesFirstLoginsWait, "--first-login"), ["first_login"]);
    }

    #[test]
    fn flood_finds_bystanders_who_wait() {
        let slow = slow(Fault::StallsAtEachGroupChat, "--bound");
        assert!(slow.iter().any(|what| what == "groups_chat_flood"), "{slow:?}");
    }

    #[test]
    fn flood_finds_memory_that_grows() {
        let command = FLOOD.replace("64GiB", "32MiB");
        let failures = failures(Fault::GrowsAtAGroupChat, &command);
        assert!(
            failures.iter().any(|failure| matches!(failure, Failure::Grew { what: "groups", .. })),
            "{failures:?}"
        );
    }

    #[test]
    fn flood_finds_a_copy_that_is_not_kept() {
        let failures = failures(Fault::LosesACopy, FLOOD);
        assert!(
            matches!(failures[..], [Failure::NotKept { answered, kept }] if answered == kept + 1),
            "{failures:?}"
        );
    }

    #[test]
    fn users_of_an_earlier_run_are_used_again() {
        let fake = Fake::start(Fault::None);
        let (target, data) = (fake.address().to_string(), fake.data().display().to_string());
        let words = ["stress", "vanish", "--json", "--clients", "3", "--target", &target, "--data", &data];
        let args = Command::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args;
        for _ in 0..2 {
            assert!(examine(&args).unwrap().failures.is_empty());
        }
        assert_eq!(fake.users(), 3);
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

    #[test]
    fn a_prefix_keeps_names_within_what_a_server_accepts() {
        assert!(word("night-run_2").is_ok());
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(MAX_PREFIX_BYTES + 1)] {
            assert!(word(bad).is_err(), "{bad:?}");
        }
    }
}
