//! The list of mutations fits the source, and names what the simulation can say.
//!
//! Whether each mutation is found out, `scripts/mutants.sh` tries. This runs with every test.

use crate::testing::mutations::{assert_they_fit, read};

const LIST: &str = include_str!("mutations.txt");

/// Where it is written what does not hold.
const SAYING: [&str; 8] = [
    include_str!("checks.rs"),
    include_str!("hearing.rs"),
    include_str!("line.rs"),
    include_str!("shadow.rs"),
    include_str!("sight.rs"),
    include_str!("../memory/storage.rs"),
    include_str!("../wire.rs"),
    include_str!("../../service/unconfirmed.rs"),
];

#[test]
fn every_mutation_applies_to_the_source_as_it_is() {
    assert_they_fit(&read(LIST));
}

#[test]
fn what_the_simulation_has_to_say_of_a_mutation_is_something_it_can_say() {
    for mutation in read(LIST) {
        for finder in &mutation.finders {
            let is_said = SAYING.iter().any(|source| source.contains(finder));
            assert!(is_said, "{}: {finder}", mutation.name);
        }
    }
}
