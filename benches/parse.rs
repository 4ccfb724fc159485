//! What it costs to make a request of the bytes between two brackets, for the requests that come most.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use linger::protocol::request::parse;

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
    criterion.final_summary();
}
