//! `linger why`: how somebody last left. One departure is told in words, several as a table.

use clap::Args;
use jiff::Timestamp;
use rustix::io::Errno;

use super::table::{age, local_time, micros, or_dash, render, shown};
use super::{Failure, Reach};
use linger_server::admin::departures::{DepartureRow, DepartureTarget, Departures, Limit, Why as WhyAsk};
use linger_server::admin::protocol::AdminRequest;
use linger_server::admin::target::Target;

const EXAMPLES: &str = "\
Targets:
  13               the user with that id
  alice, @alice    the user with that name; @ where it reads like another form
  '#7.3'           whoever was on that channel; the names begin anew with each start
  ip:10.0.0.0/8    whoever came from these addresses
  all              everybody

Columns:
  when             when the server noticed
  by               who brought it about: client, network, server, admin
  errno            the system's error, where there was one
  session          from login to the end
  offline          from noticed to `offline` committed in the database
  closed           from noticed to the file descriptor closed; none where the channel stayed
  delivered        messages handed over during the session
  saved, lost      messages under way at its end that were kept for the next login, or were not

A channel on which nobody ever logged in has no departure; the log and the metrics know it.
After a crash of the server nobody knows channel, address and message account.
Kept for 7 days or the newest 100,000, across restarts.

Examples:
  linger why bob
  linger why '#7.3' --limit 1
  linger why ip:10.0.0.0/8 --json

Exit code 3 when nothing matched.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Why {
    /// A user, a channel or addresses; see below.
    #[arg(value_name = "TARGET")]
    target: DepartureTarget,
    /// How many departures at most, the newest first.
    #[arg(long, value_name = "N", default_value_t)]
    limit: Limit,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: Why) -> Result<(), Failure> {
    let Why { target, limit, reach } = args;
    let departures = ask(&reach, target.clone(), limit)?;
    if departures.departures.is_empty() {
        return reach.show_nothing(&departures, format!("no departure matched {}", Target::from(target)));
    }
    reach.show(&departures, |answer| match answer.departures.as_slice() {
        [only] => story(only, Timestamp::now().as_millisecond()),
        _ => table(answer),
    })
}

/// Asks the server who left.
pub(super) fn ask(reach: &Reach, target: DepartureTarget, limit: Limit) -> Result<Departures, Failure> {
    reach.ask(&AdminRequest::Why(WhyAsk { target, limit }))
}

/// One line for each departure.
pub(super) fn table(answer: &Departures) -> String {
    let header = [
        "when",
        "user",
        "name",
        "channel",
        "peer",
        "reason",
        "by",
        "errno",
        "session",
        "offline",
        "closed",
        "delivered",
        "saved",
        "lost",
    ];
    render(header, answer.departures.iter().map(row))
}

fn row(departure: &DepartureRow) -> [String; 14] {
    [
        local_time(departure.at),
        departure.user.to_string(),
        departure.name.clone(),
        or_dash(departure.channel.as_ref().map(|channel| format!("#{channel}"))),
        or_dash(departure.peer.as_ref()),
        departure.reason.clone(),
        departure.initiator.clone(),
        or_dash(departure.errno.map(errno_text)),
        or_dash(session(departure)),
        or_dash(departure.offline_us.map(length)),
        or_dash(departure.closed_us.map(length)),
        or_dash(departure.delivered),
        or_dash(departure.saved),
        or_dash(departure.lost),
    ]
}

/// One departure in words, without what is not known of it.
fn story(departure: &DepartureRow, now_ms: i64) -> String {
    let ago = age(between(departure.at, now_ms));
    let errno = departure.errno.map_or(String::new(), |errno| format!(", {}", errno_text(errno)));
    let mut text = format!(
        "{} left {ago} ago: {} ({}){errno}\n",
        shown(&departure.name),
        shown(&departure.reason),
        shown(&departure.initiator)
    );
    let messages = [
        (departure.delivered, "delivered"),
        (departure.saved, "saved for the next login"),
        (departure.lost, "lost"),
    ];
    let messages: Vec<_> =
        messages.into_iter().filter_map(|(count, what)| Some(format!("{} {what}", count?))).collect();
    let lines = [
        ("user", Some(format!("{} {}", departure.user, departure.name))),
        ("channel", departure.channel.as_ref().map(|channel| format!("#{channel}"))),
        ("peer", departure.peer.clone()),
        (
            "session",
            departure
                .since
                .zip(session(departure))
                .map(|(since, length)| format!("{length}, since {}", local_time(since))),
        ),
        ("noticed", Some(local_time(departure.at))),
        ("offline", departure.offline_us.map(|us| format!("{} later, in the database", length(us)))),
        ("closed", departure.closed_us.map(|us| format!("{} later", length(us)))),
        ("messages", (!messages.is_empty()).then(|| messages.join(", "))),
    ];
    let known = lines.into_iter().filter_map(|(what, value)| Some((what, value?)));
    text.extend(known.map(|(what, value)| format!("  {what:<9} {}\n", shown(&value))));
    text
}

/// How long the session was.
fn session(departure: &DepartureRow) -> Option<String> {
    Some(age(between(departure.since?, departure.at)))
}

/// Milliseconds; none are left when a clock was set back.
fn between(then_ms: i64, now_ms: i64) -> u64 {
    u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or(0)
}

fn length(us: i64) -> String {
    micros(u64::try_from(us).unwrap_or(0))
}

/// `ECONNRESET (104)`, or the number alone.
fn errno_text(errno: i64) -> String {
    let name = NAMES.iter().find(|(known, _)| i64::from(known.raw_os_error()) == errno);
    name.map_or_else(|| errno.to_string(), |(_, name)| format!("{name} ({errno})"))
}

/// What reading and writing a TCP connection may end with, as `tcp(7)` and `socket(7)` name it.
const NAMES: [(Errno, &str); 19] = [
    (Errno::BADF, "EBADF"),
    (Errno::CONNABORTED, "ECONNABORTED"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::CONNRESET, "ECONNRESET"),
    (Errno::HOSTDOWN, "EHOSTDOWN"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::INVAL, "EINVAL"),
    (Errno::IO, "EIO"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NETDOWN, "ENETDOWN"),
    (Errno::NETRESET, "ENETRESET"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::NFILE, "ENFILE"),
    (Errno::NOBUFS, "ENOBUFS"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::NOTCONN, "ENOTCONN"),
    (Errno::PIPE, "EPIPE"),
    (Errno::PROTO, "EPROTO"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn reset() -> DepartureRow {
        DepartureRow {
            at: 1_700_000_192_000,
            channel: Some("7.3".into()),
            user: 13,
            name: "bob".into(),
            peer: Some("127.0.0.1:4242".into()),
            reason: "peer_reset".into(),
            initiator: "network".into(),
            errno: Some(104),
            offline_us: Some(1_900),
            closed_us: Some(5_000_214),
            delivered: Some(3),
            saved: Some(2),
            lost: Some(0),
            since: Some(1_700_000_000_000),
        }
    }

    /// As a crash leaves it.
    fn crash() -> DepartureRow {
        DepartureRow {
            channel: None,
            peer: None,
            reason: "server_crash".into(),
            initiator: "server".into(),
            errno: None,
            offline_us: None,
            closed_us: None,
            delivered: None,
            saved: None,
            lost: None,
            since: None,
            ..reset()
        }
    }

    #[test]
    fn one_departure_is_told_in_words() {
        let at = local_time(1_700_000_192_000);
        let since = local_time(1_700_000_000_000);
        let expected = format!(
            "bob left 3m00s ago: peer_reset (network), ECONNRESET (104)\n\
             \x20 user      13 bob\n\
             \x20 channel   #7.3\n\
             \x20 peer      127.0.0.1:4242\n\
             \x20 session   3m12s, since {since}\n\
             \x20 noticed   {at}\n\
             \x20 offline   1.9ms later, in the database\n\
             \x20 closed    5.0s later\n\
             \x20 messages  3 delivered, 2 saved for the next login, 0 lost\n"
        );
        assert_eq!(story(&reset(), 1_700_000_372_000), expected);
    }

    #[test]
    fn what_is_not_known_of_a_crash_is_left_out() {
        let at = local_time(1_700_000_192_000);
        let expected =
            format!("bob left 0ms ago: server_crash (server)\n  user      13 bob\n  noticed   {at}\n");
        assert_eq!(story(&crash(), 0), expected, "and a clock that was set back does no harm");
        let cells = row(&crash());
        assert_eq!(cells[3..], ["-", "-", "server_crash", "server", "-", "-", "-", "-", "-", "-", "-"]);
    }

    #[test]
    fn several_departures_are_a_table() {
        let text = table(&Departures { departures: vec![reset(), crash()] });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].contains("ECONNRESET (104)  3m12s    1.9ms    5.0s    3          2      0"),
            "{text}"
        );
    }

    #[test]
    fn a_name_plays_no_tricks_in_words_either() {
        let text = story(&DepartureRow { name: "a\x1b[2J\nb".into(), ..reset() }, 0);
        assert!(!text.contains('\x1b') && text.lines().count() == 9, "{text:?}");
    }

    #[test]
    fn an_errno_has_its_name_where_it_is_known() {
        assert_eq!(errno_text(110), "ETIMEDOUT (110)");
        assert_eq!(errno_text(9_999), "9999");
    }
}
