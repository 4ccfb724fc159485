//! What holds for every input, whoever sends it: one function for each fuzz target.
//!
//! Each takes bytes and panics where its property does not hold. Three drive them: libFuzzer (`scripts/fuzz.sh`),
//! the corpus in `fuzz/corpus` with every test run, and inputs made at random from the words that matter.
//!
//! | target | of | property |
//! |---|---|---|
//! | `framing` | `protocol::framing` | any split gives the requests that a framer of a few plain lines finds; what is kept is no more than what was sent, nor than the limit |
//! | `request` | `protocol::request`, `chat`, `json` | what is understood is what `serde_json` reads; a chat is delivered as one line with the true sender and nothing else changed; a complaint has a bounded length |
//! | `line` | `protocol::line` | any split gives the lines that splitting at LF gives; what is written is one line, not longer than what was said |
//! | `control` | `control::message`, `target` | a request that is read reads back as the same from the line that it is written as; a refusal is one line of JSON |
//! | `config` | `config` | what is accepted is within its bounds; a complaint is one line; a duration reads back as the same |
//! | `channel` | `worker`, `offline`, `service` | after any bytes in any split, in either protocol, then an end or a reset: the channel has left once, is settled and closed once, its session ended with one row, and nothing is left behind; without a login any split gives the same answers |

mod channel;
mod config;
mod control;
#[cfg(test)]
mod corpus;
mod framing;
mod line;
mod request;

/// Every fuzz target.
const TARGETS: [(&str, fn(&[u8])); 6] = [
    ("channel", channel::holds),
    ("config", config::holds),
    ("control", control::holds),
    ("framing", framing::holds),
    ("line", line::holds),
    ("request", request::holds),
];

/// Checks one input.
pub(crate) fn check(target: &str, input: &[u8]) {
    let (_, holds) = TARGETS.iter().find(|(name, _)| *name == target).expect("a fuzz target of that name");
    holds(input);
}

/// Ways to cut an input into pieces: not at all, at every byte, and at places that depend on nothing but the input.
fn splits(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut splits = vec![vec![input], input.chunks(1).collect()];
    let mut state = input.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for longest in [3, 40] {
        let (mut pieces, mut rest) = (Vec::new(), input);
        while !rest.is_empty() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (piece, behind) = rest.split_at(rest.len().min(1 + (state >> 33) as usize % longest));
            pieces.push(piece);
            rest = behind;
        }
        splits.push(pieces);
    }
    splits
}
