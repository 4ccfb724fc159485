//! What holds for every input, whoever sends it: one function for each fuzz target.
//!
//! Each takes bytes and panics where its property does not hold. Three drive them: libFuzzer (`scripts/fuzz.sh`),
//! the corpus in `fuzz/corpus` with every test run, and inputs made at random from the words that matter.
//!
//! What each property says is in `docs/testing.md`.

mod channel;
#[cfg(test)]
mod chats;
mod config;
mod control;
#[cfg(test)]
mod corpus;
mod framing;
mod line;
mod request;

/// Panics where the property does not hold for an input.
type Holds = fn(&[u8]);

/// Every fuzz target.
pub(crate) const TARGETS: [(&str, Holds); 6] = [
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
