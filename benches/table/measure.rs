//! The rows, one after another. Each has servers of its own, which nobody has used before.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::draw::Curve;
use super::load::Crowd;
use super::process::{PEERS, Peer, Process, linger, start_linger};
use super::protocol::{Login, Protocol};
use super::rows::{Goal, Row};

/// How much of everything.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// Clients of a relay, and lanes of the cycles.
    some: usize,
    /// Clients who vanish, are kicked or come back.
    many: usize,
    /// Clients who are silent.
    most: usize,
    /// Points of the curves.
    growth: &'static [usize],
    relay: Duration,
    /// Long enough for two pings.
    silence: Duration,
    keep_seconds: u64,
    keep_senders: usize,
}

impl Sizes {
    pub(crate) fn full() -> Self {
        Sizes {
            some: 100,
            many: 10_000,
            most: 19_000,
            growth: &[100, 300, 1_000, 3_000, 10_000, 19_000],
            relay: Duration::from_secs(4),
            silence: Duration::from_secs(55),
            keep_seconds: 5,
            keep_senders: 1_000,
        }
    }

    pub(crate) fn short() -> Self {
        Sizes {
            some: 10,
            many: 20,
            most: 30,
            growth: &[10, 20],
            relay: Duration::from_millis(200),
            silence: Duration::from_millis(200),
            keep_seconds: 1,
            keep_senders: 10,
        }
    }
}

/// How often everybody vanishes; the median counts.
const STORMS: usize = 5;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Subject {
    LingerLine,
    LingerJson(Login),
    Peer(Peer),
}

/// Measures, and counts what went wrong.
pub(crate) struct Measure {
    sizes: Sizes,
    threads: usize,
    peers: [Option<PathBuf>; 3],
    failures: Cell<u64>,
}

impl Measure {
    /// Looks which peers there are, and tells which are missing.
    pub(crate) fn new(sizes: Sizes, threads: usize) -> Result<Self> {
        let peers = PEERS.map(Peer::find);
        for (peer, _) in PEERS.iter().zip(&peers).filter(|(_, program)| program.is_none()) {
            let Peer { name, variable, program } = peer;
            tell(&format!("missing: {name}; put {program} into PATH, or name it by {variable}"))?;
        }
        Ok(Measure { sizes, threads, peers, failures: Cell::new(0) })
    }

    /// Measurements that could not be made.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// The table, or the rows whose name has that word in it.
    pub(crate) fn rows(&self, only: Option<&str>) -> Vec<Row> {
        let wanted = |what: &str| only.is_none_or(|word| what.contains(word));
        let mut rows = Vec::new();
        let line = Subject::LingerLine;
        let json = Subject::LingerJson(Login::Password);
        // Peers speak no JSON: the figures of their own protocol stand beside both.
        for (what, linger, clients, window, goal, is_p50) in [
            ("line relay, 1 under way", line, self.sizes.some, 1, Goal::TimesFloor(1.2), false),
            ("line relay, 32 under way", line, self.sizes.some, 32, Goal::TimesFloor(2.0), false),
            ("JSON relay, 1 under way", json, self.sizes.some, 1, Goal::TimesFloor(1.4), false),
            ("JSON relay, 32 under way", json, self.sizes.some, 32, Goal::AtMost(0.6), false),
            ("one pair, p50", line, 2, 1, Goal::TimesFloor(1.1), true),
        ] {
            if wanted(what) {
                let known = known(&rows, &what.replace("JSON", "line"));
                rows.push(self.compared((what, "µs", goal), linger, known, |server, crowd| {
                    crowd.grow(clients, true)?;
                    let relayed = crowd.relay(server, window, self.sizes.relay)?;
                    Ok(if is_p50 { relayed.p50_us } else { relayed.cpu_us })
                }));
            }
        }
        for (what, login) in [("cycle, password known", Login::Password), ("cycle, with token", Login::Token)]
        {
            if wanted(what) {
                let linger = Subject::LingerJson(login);
                let (goal, known) = (Goal::TimesFloor(2.5), known(&rows, "cycle, password known"));
                rows.push(self.compared((what, "µs", goal), linger, known, |server, crowd| {
                    crowd.cycle(server, self.sizes.some / 2, self.sizes.relay)
                }));
            }
        }
        if wanted("idle client") {
            let (what, goal) = ("idle client", Goal::AtMost(700.0));
            let linger = self.attempt(&format!("{what}, linger"), || self.known_and_idle());
            let peers = PEERS.map(|peer| {
                self.at(&format!("{what}, {}", peer.name), Subject::Peer(peer), &|server, crowd| {
                    self.idle(server, |size| crowd.grow(size, false))
                })
            });
            rows.push(Row { what, unit: "bytes", goal, linger, peers });
        }
        if wanted("clients vanish") {
            let what = "clients vanish, each";
            rows.push(self.compared((what, "µs", Goal::AtMost(20.0)), json, None, |server, crowd| {
                crowd.grow(self.sizes.many, true)?;
                let mut storms = Vec::new();
                for storm in 0..STORMS {
                    if storm > 0 {
                        crowd.enter_again()?;
                    }
                    server.calm()?;
                    storms.push(crowd.leave(server)?);
                }
                storms.sort_by(f64::total_cmp);
                Ok(storms[STORMS / 2])
            }));
        }
        self.own_rows(&wanted, &mut rows);
        rows
    }

    /// What only Linger does.
    fn own_rows(&self, wanted: &impl Fn(&str) -> bool, rows: &mut Vec<Row>) {
        let many = self.sizes.many.to_string();
        let mut own = |what: &'static str, unit, goal, measure: &dyn Fn() -> Result<f64>| {
            if wanted(what) {
                rows.push(Row::own(what, unit, goal, self.attempt(what, measure)));
            }
        };
        own("all vanished are offline after", "ms", Goal::AtMost(150.0), &|| {
            let figures = self.stress(&["vanish", "--how", "fin", "--clients", &many])?;
            figure(&figures["offline_in_database_ms"])
        });
        own("kick, p99 of the end of the stream", "ms", Goal::AtMost(1.0), &|| {
            let figures = self.stress(&["kick", "--clients", &many])?;
            Ok(figure(&figures["end_of_stream_us"]["p99"])? / 1e3)
        });
        own("all back by token after a restart", "s", Goal::AtMost(2.0), &|| self.reconnect());
        let senders = self.sizes.keep_senders.to_string();
        let seconds = self.sizes.keep_seconds.to_string();
        let keep = |senders: &str| {
            let figures = self.stress(&["keep", "--seconds", &seconds, "--clients", senders])?;
            figure(&figures["answered_per_s"])
        };
        let together = std::cell::OnceCell::new();
        own("kept on disk, 1,000 senders", "/s", Goal::AtLeast(50_000.0), &|| {
            let rate = keep(&senders)?;
            Ok(*together.get_or_init(|| rate))
        });
        own("the same, in units of one sender", "×", Goal::AtLeast(20.0), &|| {
            let alone = keep("1")?;
            let together = together.get().copied().map_or_else(|| keep(&senders), Ok)?;
            Ok(together / alone)
        });
        own("silence of 19,000 with pings, CPU", "%", Goal::AtMost(2.0), &|| {
            let (server, mut crowd) =
                self.start(Subject::LingerJson(Login::Pinged))?.context("linger is missing")?;
            crowd.grow(self.sizes.most, true)?;
            server.process.calm()?;
            let (cpu, pings) = crowd.stay(&server.process, self.sizes.silence)?;
            tell(&format!("  {pings} pings"))?;
            Ok(cpu.as_secs_f64() / self.sizes.silence.as_secs_f64() * 100.0)
        });
    }

    /// How the cost of a chat grows with the channels, when all of them talk.
    pub(crate) fn curves(&self) -> Vec<Curve> {
        let mut curves = Vec::new();
        let linger =
            [("linger, lines", Subject::LingerLine), ("linger, JSON", Subject::LingerJson(Login::Password))];
        let peers = PEERS.iter().map(|&peer| (peer.name, Subject::Peer(peer)));
        for (name, subject) in linger.into_iter().chain(peers) {
            let mut points = Vec::new();
            self.attempt(name, || {
                let Some((server, mut crowd)) = self.start(subject)? else { return Ok(0.0) };
                for &channels in self.sizes.growth {
                    crowd.grow(channels, true)?;
                    server.process.calm()?;
                    let relayed = crowd.relay(&server.process, 1, self.sizes.relay)?;
                    points.push((channels as f64, relayed.cpu_us));
                    tell(&format!("  {name}, {channels} channels: {:.2} µs", relayed.cpu_us))?;
                }
                Ok(0.0)
            });
            if !points.is_empty() {
                curves.push(Curve { name: name.to_owned(), points });
            }
        }
        curves
    }

    /// The same at Linger and at each peer whose figure is not known.
    fn compared(
        &self,
        (what, unit, goal): (&'static str, &'static str, Goal),
        linger: Subject,
        known: Option<[Option<f64>; 3]>,
        measure: impl Fn(&Process, &mut Crowd) -> Result<f64>,
    ) -> Row {
        let at = |name, subject| self.at(&format!("{what}, {name}"), subject, &measure);
        let linger = at("linger", linger);
        let peers = known.unwrap_or_else(|| PEERS.map(|peer| at(peer.name, Subject::Peer(peer))));
        Row { what, unit, goal, linger, peers }
    }

    /// A measurement at a fresh server; `None` where it failed, or where there is no such server.
    fn at(
        &self,
        what: &str,
        subject: Subject,
        measure: &dyn Fn(&Process, &mut Crowd) -> Result<f64>,
    ) -> Option<f64> {
        let figure = self.attempt(what, || {
            let Some((server, mut crowd)) = self.start(subject)? else { return Ok(f64::NAN) };
            measure(&server.process, &mut crowd)
        });
        figure.filter(|figure| !figure.is_nan())
    }

    /// What a server's memory has grown by for each client that `enter` brings in.
    fn idle(&self, server: &Process, enter: impl FnOnce(usize) -> Result<()>) -> Result<f64> {
        let before = server.resident_bytes()?;
        enter(self.sizes.many)?;
        server.calm()?;
        let grown = server.resident_bytes()?.saturating_sub(before);
        Ok(grown as f64 / self.sizes.many as f64)
    }

    /// The same for users whom the server knows from its last run: registering leaves its own traces.
    fn known_and_idle(&self) -> Result<f64> {
        let home = tempfile::tempdir_in(scratch())?;
        let server = start_linger(home.path(), self.threads)?;
        let mut crowd = Crowd::new(server.json, Protocol::Json(Login::Password))?;
        crowd.grow(self.sizes.many, true)?;
        server.stop()?;
        let server = start_linger(home.path(), self.threads)?;
        self.idle(&server, |_| crowd.reconnect(server.json))
    }

    /// From the server's return to the last login by token.
    fn reconnect(&self) -> Result<f64> {
        let protocol = Protocol::Json(Login::Token);
        let home = tempfile::tempdir_in(scratch())?;
        let server = start_linger(home.path(), self.threads)?;
        let mut crowd = Crowd::new(server.json, protocol)?;
        crowd.grow(self.sizes.many, true)?;
        server.stop()?;
        let server = start_linger(home.path(), self.threads)?;
        let since = Instant::now();
        crowd.reconnect(server.json)?;
        Ok(since.elapsed().as_secs_f64())
    }

    /// A scenario of `linger stress` at a server of its own; its figures, where the verdict is good.
    fn stress(&self, scenario: &[&str]) -> Result<Value> {
        let home = tempfile::tempdir_in(scratch())?;
        let server = start_linger(home.path(), self.threads)?;
        let mut command = linger();
        command.arg("stress").args(scenario).args(["--json", "--target", &server.json.to_string(), "--data"]);
        let output = command.arg(home.path()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let mut answer: Value = serde_json::from_slice(&output.stdout)?;
        Ok(answer["figures"].take())
    }

    /// A server with nobody online; `None` for a peer that is not there.
    fn start(&self, subject: Subject) -> Result<Option<(Server, Crowd)>> {
        let home = tempfile::tempdir_in(scratch())?;
        let own = |protocol, address: fn(&Process) -> SocketAddr| -> Result<_> {
            let process = start_linger(home.path(), self.threads)?;
            let crowd = Crowd::new(address(&process), protocol)?;
            Ok((process, crowd))
        };
        let (process, crowd) = match subject {
            Subject::LingerLine => own(Protocol::Line, |process| process.line)?,
            Subject::LingerJson(login) => own(Protocol::Json(login), |process| process.json)?,
            Subject::Peer(peer) => {
                let at = PEERS.iter().position(|other| *other == peer);
                let Some(program) = at.and_then(|at| self.peers[at].as_ref()) else { return Ok(None) };
                let process = peer.start(program, self.threads)?;
                let protocol = if peer.name == "nats" { Protocol::Nats } else { Protocol::Line };
                let crowd = Crowd::new(process.line, protocol)?;
                (process, crowd)
            }
        };
        Ok(Some((Server { process, _home: home }, crowd)))
    }

    /// Makes one measurement; a failure is told and counted, and the others go on.
    fn attempt(&self, what: &str, measure: impl FnOnce() -> Result<f64>) -> Option<f64> {
        let figure = tell(what).and_then(|()| measure());
        match figure {
            Ok(figure) => Some(figure),
            Err(error) => {
                self.failures.set(self.failures.get() + 1);
                let _ = tell(&format!("  failed: {error:#}"));
                None
            }
        }
    }
}

/// What the peers came to in an earlier row.
fn known(rows: &[Row], what: &str) -> Option<[Option<f64>; 3]> {
    rows.iter().find(|row| row.what == what).map(|row| row.peers)
}

/// A running server and its directory, which goes after it.
struct Server {
    process: Process,
    _home: tempfile::TempDir,
}

/// Where the data of the servers goes: on a disk, as temporary files often are not.
pub(crate) fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn figure(value: &Value) -> Result<f64> {
    value.as_f64().context("the scenario did not measure it")
}

/// Tells whoever waits, beside the table on stdout.
fn tell(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "{line}")?)
}
