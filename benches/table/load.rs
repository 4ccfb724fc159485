//! What is done to a server, and what that costs it: relay, cycles, silence, and everybody gone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;

use super::client_pool::ClientPool;
use super::process::Process;
use super::protocol::{Identity, Protocol, ServerMessage, identities};

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(20);

/// Logins under way at once.
const LOGINS: usize = 256;

/// Without anything for so long there is no point in waiting on.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Bytes of a chat's text.
const TEXT_BYTES: usize = 64;

/// What the relay runs before it is measured, as a part of what it is measured for.
const WARM_UP: f64 = 0.25;

/// Clients who are online at one server.
pub(crate) struct Crowd {
    pool: ClientPool,
    who: Vec<Identity>,
}

/// What a relay came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relayed {
    /// The server's CPU time per chat, in microseconds.
    pub(crate) cpu_us: f64,
    /// From the write to the read, for half of the chats, in microseconds.
    pub(crate) p50_us: f64,
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(target: SocketAddr, protocol: Protocol) -> Result<Self> {
        Ok(Self { pool: ClientPool::new(target, protocol)?, who: Vec::new() })
    }

    /// Brings more users online, until there are `size`. Those whom the server does not know register.
    pub(crate) fn grow(&mut self, size: usize, register: bool) -> Result<()> {
        let first = self.who.len();
        self.who.extend_from_slice(&identities("bench", size)[first..]);
        self.enter(first, register)
    }

    /// Brings everybody online again who has left, at the same server.
    pub(crate) fn enter_again(&mut self) -> Result<()> {
        self.reconnect(self.pool.target())
    }

    /// Brings everybody online again, at the server's next run.
    pub(crate) fn reconnect(&mut self, target: SocketAddr) -> Result<()> {
        self.pool = ClientPool::new(target, self.pool.protocol())?;
        self.enter(0, false)
    }

    /// Logs in all from the first of these on.
    fn enter(&mut self, first: usize, register: bool) -> Result<()> {
        let (size, pool) = (self.who.len(), &mut self.pool);
        let (mut next, mut ready, mut waiting_since) = (first, first, Instant::now());
        let (protocol, mut refused, mut logged_in) = (pool.protocol(), None, Vec::new());
        while ready < size {
            while next < size && next - ready < LOGINS {
                pool.connect(next)?;
                let hello = protocol.hello(&self.who[next], register);
                pool.send(next, |out| out.extend_from_slice(hello.as_bytes()));
                next += 1;
            }
            pool.turn(TURN, |who, message| match message {
                ServerMessage::Ready { id, token } => logged_in.push((who, id, token.map(str::to_owned))),
                ServerMessage::Refused(line) => refused = Some(line.to_owned()),
                _ => {}
            })?;
            for (who, id, token) in logged_in.drain(..) {
                (self.who[who].id, self.who[who].token) = (id, token);
                (ready, waiting_since) = (ready + 1, Instant::now());
            }
            if let Some(line) = &refused {
                bail!("a login was refused: {line}");
            }
            ensure!(waiting_since.elapsed() < STUCK_AFTER, "stuck at {ready} of {size} logins");
        }
        Ok(())
    }

    /// Pairs exchange chats in both directions, each with `window` under way.
    pub(crate) fn relay(&mut self, server: &Process, window: u64, time: Duration) -> Result<Relayed> {
        let (start, mut measured) = (Instant::now(), None);
        let (mut text, protocol) = (String::new(), self.pool.protocol());
        let mut streams = vec![(0_u64, 0_u64); self.who.len() & !1];
        let mut latency = Histogram::<u64>::new_with_max(60_000_000_000, 3)?;
        let (mut received, mut wrong) = (0_u64, None);
        let mut refill: Vec<usize> = (0..streams.len()).collect();
        loop {
            let is_over = start.elapsed() >= time.mul_f64(1.0 + WARM_UP);
            for who in refill.drain(..) {
                let (sent, back) = &mut streams[who];
                while !is_over && *sent - *back < window {
                    stamp(&mut text, *sent, start.elapsed());
                    self.pool.send(who, |out| protocol.chat(&self.who[who ^ 1], &text, out));
                    *sent += 1;
                }
            }
            if measured.is_none() && start.elapsed() >= time.mul_f64(WARM_UP) {
                latency.reset();
                measured = Some((server.cpu()?, received));
            }
            if is_over {
                break;
            }
            self.pool.turn(TURN, |who, message| match message {
                ServerMessage::Chat(text) => {
                    let (_, back) = &mut streams[who ^ 1];
                    let (serial, sent) = read_stamp(text);
                    if serial != *back {
                        wrong = Some(format!("chat {serial} came where {back} was due"));
                    }
                    *back += 1;
                    received += 1;
                    latency.saturating_record(start.elapsed().saturating_sub(sent).as_nanos() as u64);
                    refill.push(who ^ 1);
                }
                ServerMessage::Refused(line) => wrong = Some(line.to_owned()),
                _ => {}
            })?;
            if let Some(wrong) = &wrong {
                bail!("{wrong}");
            }
        }
        let Some((cpu, before)) = measured else { bail!("too short a time") };
        let (cpu, chats) = (server.cpu()?.saturating_sub(cpu), received - before);
        self.drain(&mut streams)?;
        ensure!(chats > 0, "no chat came through");
        Ok(Relayed { cpu_us: us(cpu) / chats as f64, p50_us: latency.value_at_quantile(0.5) as f64 / 1e3 })
    }

    /// Reads what is still under way.
    fn drain(&mut self, streams: &mut [(u64, u64)]) -> Result<()> {
        let since = Instant::now();
        while streams.iter().any(|(sent, back)| back < sent) {
            self.pool.turn(TURN, |who, message| {
                streams[who ^ 1].1 += u64::from(matches!(message, ServerMessage::Chat(_)));
            })?;
            ensure!(since.elapsed() < STUCK_AFTER, "chats are lost");
        }
        Ok(())
    }

    /// Nothing is said but pings are answered; the server's CPU time meanwhile, and how many pings there were.
    pub(crate) fn stay(&mut self, server: &Process, time: Duration) -> Result<(Duration, u64)> {
        let (start, cpu, mut pings) = (Instant::now(), server.cpu()?, 0);
        let (pong, mut pinged) = (self.pool.protocol().pong(), Vec::new());
        while let Some(left) = time.checked_sub(start.elapsed()) {
            self.pool.turn(left.min(TURN), |who, message| {
                if message == ServerMessage::Ping {
                    pinged.push(who);
                }
            })?;
            for who in pinged.drain(..) {
                self.pool.send(who, |out| out.extend_from_slice(pong.as_bytes()));
                pings += 1;
            }
        }
        Ok((server.cpu()?.saturating_sub(cpu), pings))
    }

    /// Each lane connects, logs in and leaves, again and again; the server's CPU time per cycle, in microseconds, to
    /// the last trace of the last.
    pub(crate) fn cycle(&mut self, server: &Process, lanes: usize, time: Duration) -> Result<f64> {
        self.grow(lanes, true)?;
        self.leave(server)?;
        let (protocol, start, cpu) = (self.pool.protocol(), Instant::now(), server.cpu()?);
        let (mut cycles, mut under_way, mut refused) = (0_u64, lanes, None);
        // The tokens of the logins before are as good as passwords.
        let mut again: Vec<_> = (0..lanes).map(|who| (who, self.who[who].token.take())).collect();
        let mut done = Vec::new();
        let mut progressed = Instant::now();
        while under_way > 0 {
            let is_over = start.elapsed() >= time;
            for (who, token) in again.drain(..) {
                self.who[who].token = token;
                if is_over {
                    under_way -= 1;
                    continue;
                }
                if protocol == Protocol::Line {
                    // A relay may hold a name until it has seen the end of its last owner.
                    self.who[who].name = format!("bench{who}x{cycles}");
                }
                self.pool.connect(who)?;
                let hello = protocol.hello(&self.who[who], false);
                self.pool.send(who, |out| out.extend_from_slice(hello.as_bytes()));
            }
            self.pool.turn(TURN, |who, message| match message {
                ServerMessage::Ready { token, .. } => done.push((who, token.map(str::to_owned))),
                ServerMessage::Refused(line) => refused = Some(line.to_owned()),
                _ => {}
            })?;
            if let Some(line) = &refused {
                bail!("a login was refused: {line}");
            }
            for (who, token) in done.drain(..) {
                self.pool.close(who);
                cycles += 1;
                progressed = Instant::now();
                again.push((who, token));
            }
            ensure!(progressed.elapsed() < STUCK_AFTER, "a login is never answered");
        }
        server.calm()?;
        ensure!(cycles > 0, "nobody came in");
        Ok(us(server.cpu()?.saturating_sub(cpu)) / cycles as f64)
    }

    /// Everybody is gone at once; the server's CPU time for each, in microseconds, to the last trace.
    pub(crate) fn leave(&mut self, server: &Process) -> Result<f64> {
        let (cpu, count) = (server.cpu()?, self.who.len());
        self.pool.close_all();
        server.calm()?;
        Ok(us(server.cpu()?.saturating_sub(cpu)) / count as f64)
    }
}

/// In microseconds.
fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn stamp(text: &mut String, serial: u64, sent: Duration) {
    use std::fmt::Write as _;
    text.clear();
    write!(text, "{serial} {} ", sent.as_nanos()).expect("a string takes everything");
    while text.len() < TEXT_BYTES {
        text.push('x');
    }
}

fn read_stamp(text: &str) -> (u64, Duration) {
    let mut words = text.split(' ').map(|word| word.parse().unwrap_or(u64::MAX));
    let mut next = || words.next().unwrap_or(u64::MAX);
    (next(), Duration::from_nanos(next()))
}
