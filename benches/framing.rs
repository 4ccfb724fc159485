//! What it costs to find where requests end: a full read of small chats, one large chat, and one that arrives byte by
//! byte. Nothing is parsed.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use linger_server::protocol::json::framing::{Framed, Framer};

/// What a worker reads at once.
const READ_BYTES: usize = 64 * 1024;

/// The default of `--max-frame`.
const MAX_FRAME: usize = 64 * 1024;

const CHAT: &[u8] = br#"{"msgid":6,"toid":17,"msg":"the quick brown fox jumps over the lazy dog, again"}"#;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    framing(&mut criterion);
    criterion.final_summary();
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");

    let mut small = Vec::new();
    while small.len() + CHAT.len() < READ_BYTES {
        small.extend_from_slice(CHAT);
        small.push(b'\n');
    }
    group.throughput(Throughput::Bytes(small.len() as u64));
    group.bench_function("a read of small chats", |bencher| bencher.iter(|| count(black_box(&small))));

    let large = format!(r#"{{"msgid":6,"toid":17,"msg":"{}"}}"#, "x".repeat(MAX_FRAME / 2));
    group.throughput(Throughput::Bytes(large.len() as u64));
    group.bench_function("one large chat", |bencher| bencher.iter(|| count(black_box(large.as_bytes()))));

    group.throughput(Throughput::Bytes(CHAT.len() as u64));
    group.bench_function("a chat byte by byte", |bencher| bencher.iter(|| trickle(black_box(CHAT))));
    group.finish();
}

/// How many requests lie in `input`.
fn count(mut input: &[u8]) -> usize {
    let (mut framer, mut requests) = (Framer::default(), 0);
    while let Framed::Request { end, .. } = framer.next(input, MAX_FRAME) {
        requests += 1;
        input = &input[end..];
    }
    requests
}

/// The same for a request of which each look shows one byte more.
fn trickle(input: &[u8]) -> usize {
    let mut framer = Framer::default();
    (1..=input.len())
        .filter(|&seen| matches!(framer.next(&input[..seen], MAX_FRAME), Framed::Request { .. }))
        .count()
}
