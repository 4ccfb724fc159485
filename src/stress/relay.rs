//! `relay`: pairs of users exchange chats in both directions, each with a window of them under way.
//!
//! Runs in one thread. Each chat carries its serial and the time it was sent. Bad when one is lost, comes out of
//! order or twice, or is answered by an error.

use std::time::{Duration, Instant};

use super::RelayArgs;
use super::client::{self, ReceivedChat, ServerMessage};
use super::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use super::error::{Failure, StressError};
use super::login::{self, Names, told};
use super::payload::{read_payload, write_payload};
use super::postconditions;
use super::probe::Probe;
use super::progress::Progress;
use super::report::{Latencies, Report};

/// How long the last chats are waited for.
const LAST_CHATS: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(20);

/// One direction of a pair, at its receiver.
#[derive(Clone, Copy, Default, Debug)]
struct Stream {
    sent: u64,
    received: u64,
}

/// What has been counted so far.
#[derive(Debug)]
struct Tally {
    /// By sender.
    streams: Vec<Stream>,
    reordered: u64,
    errors: u64,
    example: String,
    latency: Latencies,
}

pub(super) fn run(
    args: &RelayArgs,
    probe: &Probe,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    // Pairs: an odd one would have nobody to talk to.
    let clients = args.common.clients(100).next_multiple_of(2);
    let mut pool = ClientPool::new(args.common.target, clients)?;
    let mark = probe.mark()?;
    let ids = login::log_all_in(&mut pool, names, progress)?;

    let mut tally = Tally::new(clients);
    let took = relay(args, &mut pool, &ids, progress, &mut tally)?;
    let left_online = pool.connected();
    (0..clients).for_each(|who| pool.close(who, CloseMode::Fin));
    let left = Instant::now();

    let sent: u64 = tally.streams.iter().map(|stream| stream.sent).sum();
    let received: u64 = tally.streams.iter().map(|stream| stream.received).sum();
    report.count("clients", clients as u64);
    report.count("under_way_each", args.window.get() as u64);
    report.count("chats", received);
    report.rate("chats", received, took);
    report.latencies("latency", tally.latency);
    if sent > received {
        report.fail(Failure::Lost(sent - received));
    }
    if tally.reordered > 0 {
        report.fail(Failure::Reordered(tally.reordered));
    }
    if tally.errors > 0 {
        report.fail(Failure::Errors { count: tally.errors, example: tally.example });
    } else if left_online < clients {
        report.fail(Failure::Bystanders(clients - left_online));
    } else if received == 0 {
        report.fail(Failure::Nothing);
    }
    postconditions::wait_until_offline(
        &mut pool,
        &mut Vec::new(),
        probe,
        left,
        (mark, clients as u64),
        report,
    )?;
    postconditions::report_departures(probe, mark, report)
}

/// Sends for as long as asked, then waits for what is under way; answers from the first to the last chat.
fn relay(
    args: &RelayArgs,
    pool: &mut ClientPool,
    ids: &[i64],
    progress: &mut Progress,
    tally: &mut Tally,
) -> Result<Duration, StressError> {
    let (start, time) = (Instant::now(), Duration::from_secs(args.seconds));
    let window = args.window.get() as u64;
    let mut last = start;
    let mut events = Vec::new();
    let mut refill: Vec<usize> = (0..pool.size()).collect();
    let mut msg = String::new();
    progress.phase("relay, seconds", args.seconds);
    loop {
        let all_gone = pool.connected() == 0;
        let is_over = all_gone || start.elapsed() >= time;
        for who in refill.drain(..) {
            let stream = &mut tally.streams[who];
            while !is_over && stream.sent - stream.received.min(stream.sent) < window {
                write_payload(&mut msg, stream.sent, start.elapsed(), args.size);
                pool.send(who, &client::chat(ids[who ^ 1], &msg));
                stream.sent += 1;
            }
        }
        if is_over && (all_gone || tally.all_received() || start.elapsed() > time + LAST_CHATS) {
            progress.done();
            return Ok(last.saturating_duration_since(start));
        }
        pool.turn(TURN, &mut events)?;
        for ClientEvent { who, at, kind } in events.drain(..) {
            match kind {
                EventKind::Message(ServerMessage::Chat(ReceivedChat { msg, .. })) => {
                    tally.chat(who ^ 1, &msg, at.saturating_duration_since(start));
                    refill.push(who ^ 1);
                    last = at;
                }
                EventKind::Connected | EventKind::Message(ServerMessage::Other) => {}
                other => tally.error(told(&other)),
            }
        }
        progress.set(start.elapsed().as_secs());
    }
}

impl Tally {
    fn new(clients: usize) -> Self {
        Self {
            streams: vec![Stream::default(); clients],
            reordered: 0,
            errors: 0,
            example: String::new(),
            latency: Latencies::new(),
        }
    }

    /// Each receiver has one sender, whose chats must come in order, each once.
    fn chat(&mut self, sender: usize, msg: &str, now: Duration) {
        let stream = &mut self.streams[sender];
        match read_payload(msg) {
            Some((serial, sent)) => {
                self.reordered += u64::from(serial != stream.received);
                self.latency.record(now.saturating_sub(sent));
            }
            None => self.reordered += 1,
        }
        stream.received += 1;
    }

    fn error(&mut self, told: String) {
        self.errors += 1;
        if self.example.is_empty() {
            self.example = told;
        }
    }

    fn all_received(&self) -> bool {
        self.streams.iter().all(|stream| stream.received >= stream.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_out_of_order_is_counted() {
        let mut tally = Tally::new(2);
        for msg in ["0 0 ", "2 0 ", "1 0 ", "3 0 "] {
            tally.chat(0, msg, Duration::ZERO);
        }
        assert_eq!(tally.reordered, 2);
        assert_eq!(tally.streams[0].received, 4);
    }
}
