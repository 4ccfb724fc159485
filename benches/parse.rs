//! What it costs to make a request of the bytes between two brackets, for the requests that come most; and what it
//! costs to take one off a stream, its end found too.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use linger_server::protocol::json::framing::Framer;
use linger_server::protocol::json::next_request;
use linger_server::protocol::json::next_request::Taken;
use linger_server::protocol::request::parse;

const MAX_FRAME: usize = 65_536;

const REQUESTS: [(&str, &str); 4] = [
    ("chat", r#"{"msgid":6,"toid":17,"msg":"the quick brown fox jumps over the lazy dog, again"}"#),
    (
        "chat of an old client",
        r#"{"msgid":6,"id":13,"name":"zhang san","toid":17,"msg":"hello","time":"2026-11-21 02:41:29"}"#,
    ),
    ("chat with seq and escapes", r#"{"msgid":6,"toid":17,"msg":"say \"hello\"\n\u00e4","seq":4711}"#),
    ("login", r#"{"msgid":1,"name":"zhang san","password":"wonder","caps":["ack","ping"]}"#),
];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("parse");
    for (name, request) in REQUESTS {
        assert!(parse(request.as_bytes()).is_ok(), "{name}");
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse(black_box(request.as_bytes())).is_ok());
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("take off a stream");
    for (name, request) in REQUESTS {
        let stream = format!("{request}\0");
        let take = |stream| next_request::next(&mut Framer::default(), stream, MAX_FRAME);
        assert!(matches!(take(stream.as_bytes()), Taken::Request { request: Ok(_), .. }), "{name}");
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| matches!(take(black_box(stream.as_bytes())), Taken::Request { .. }));
        });
    }
    group.finish();
    criterion.final_summary();
}
