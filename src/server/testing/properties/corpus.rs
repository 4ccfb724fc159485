//! Every test run checks the properties with the inputs in `fuzz/corpus`, and with some made at random.

use super::{TARGETS, check};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Inputs at random for each target; more is for fuzzing.
const CASES: u32 = 64;

/// What the protocols are made of, so that random inputs get behind the first byte.
const WORDS: [&str; 76] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    ":",
    ",",
    "\0",
    "\n",
    "\r\n",
    " ",
    "\t",
    "null",
    "true",
    "-1",
    "1e400",
    "0.5",
    "9223372036854775808",
    "{\"msgid\":1,\"id\":1,\"password\":\"hash\"}",
    "{\"msgid\":1,\"name\":\"bob\",\"passwd\":\"wrong\"}",
    "{\"msgid\":3}",
    "{\"msgid\":4,\"name\":\"cy\",\"pwd\":\"hash\"}",
    "{\"msgid\":6,\"toid\":1,\"msg\":\"a\"}",
    "{\"msgid\":6,\"to\":2,\"msg\":\"\\n\",\"seq\":1}",
    "{\"msgid\":7,\"friendid\":2}",
    "{\"msgid\":8,\"groupname\":\"g\",\"groupdesc\":\"\"}",
    "{\"msgid\":9,\"groupid\":1}",
    "{\"msgid\":10,\"groupid\":1,\"msg\":\"to all\",\"seq\":\"s\"}",
    "{\"msgid\":22}",
    "{\"msgid\":24,\"mid\":1}",
    "{\"msgid\":",
    "6",
    "\"id\"",
    "\"toid\"",
    "\"msg\"",
    "\"time\"",
    "\"caps\"",
    "\"mid\"",
    "\"seq\"",
    "\"name\"",
    "{}",
    "[]",
    "ann",
    "ann hash\n",
    "guest\n",
    "ann, bob",
    "ann: hello\n",
    "bob:",
    "ann@g",
    "\u{85}",
    "\u{2028}",
    "慢",
    "{\"cmd\":\"kick\",\"targets\":[\"all\"]}",
    "{\"cmd\":\"kick\",\"targets\":[\"idle:1h\",\"#1.2\"],\"wait\":true}",
    "{\"cmd\":\"drain\"}",
    "{\"cmd\":\"why\"",
    "\"ok\":true",
    "\"ok\":false",
    "\"ban_ms\":1",
    "\"reason\":\"\u{7f}\"",
    "listen = ",
    "grace = ",
    "\"5s\"",
    "\"127.0.0.1:0\"",
    "[\"127.0.0.1:1\", \"127.0.0.1:1\"]",
    "max_frame",
    "max-frame",
    "= ",
    "300",
    "'''",
    "1h30m",
    "P1D",
    "#",
];

/// What belongs to libFuzzer.
fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn kept(target: &str) -> Vec<PathBuf> {
    let directory = fuzz().join("corpus").join(target);
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn every_input_holds(target: &str) {
    let files = kept(target);
    assert!(!files.is_empty(), "nothing is kept for {target}");
    for file in files {
        check(target, &std::fs::read(&file).unwrap());
    }
}

fn random_inputs_hold(target: &str) {
    let word = prop_oneof![
        9 => prop::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    let input = vec(word, 0..24).prop_map(|words| words.concat());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(CASES));
    runner
        .run(&input, |input| {
            check(target, &input);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(mod $target {
            #[test]
            fn every_kept_input_holds() {
                super::every_input_holds(stringify!($target));
            }

            #[test]
            fn random_inputs_hold() {
                super::random_inputs_hold(stringify!($target));
            }
        })*

        const TESTED: &[&str] = &[$(stringify!($target),)*];
    };
}

targets! { channel config control framing line request }

#[test]
fn every_target_has_a_program_a_corpus_and_tests() {
    let names = |directory: &str, suffix: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(fuzz().join(directory)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| name.strip_suffix(suffix).unwrap_or(&name).to_owned()).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("targets", ".rs"), targets);
    assert_eq!(names("corpus", ""), targets);
    assert_eq!(TESTED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), targets);
}
