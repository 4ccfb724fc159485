//! The list of mutations fits the source: it names lines and models that are there.
//!
//! Whether each mutation is found out, `scripts/mutants.sh` tries. This runs with every test.

use crate::testing::mutations::{assert_they_fit, read};
use std::collections::{BTreeMap, BTreeSet};

const LIST: &str = include_str!("mutations.txt");

/// The files of models, by module.
const MODELS: [(&str, &str); 5] = [
    ("mailbox", include_str!("mailbox.rs")),
    ("names", include_str!("names.rs")),
    ("queue", include_str!("queue.rs")),
    ("registry", include_str!("registry.rs")),
    ("step", include_str!("step.rs")),
];

/// Every model, with its module.
fn models() -> BTreeSet<String> {
    let tests = |(module, source): (&str, &'static str)| {
        let module = module.to_owned();
        source.split("#[test]\nfn ").skip(1).map(move |rest| {
            let name = rest.split('(').next().unwrap_or_default();
            format!("{module}::{name}")
        })
    };
    MODELS.into_iter().flat_map(tests).collect()
}

#[test]
fn every_mutation_applies_to_the_source_as_it_is() {
    assert_they_fit(&read(LIST));
}

#[test]
fn the_documentation_names_every_model_and_every_fuzz_target() {
    let page = include_str!("../../tested.rs");
    let targets = crate::testing::properties::TARGETS.iter().map(|(name, _)| (*name).to_owned());
    for name in models().into_iter().chain(targets) {
        assert!(page.contains(&format!("//! | `{name}` |")), "{name}");
    }
}

#[test]
fn every_model_has_a_mutation_that_it_must_find() {
    let mut found: BTreeMap<String, usize> = models().into_iter().map(|model| (model, 0)).collect();
    for mutation in read(LIST) {
        let [model] = &mutation.finders[..] else { panic!("{}: one model has to find it", mutation.name) };
        *found.get_mut(model).unwrap_or_else(|| panic!("no model {model}")) += 1;
    }
    let idle: Vec<_> = found.into_iter().filter(|(_, mutations)| *mutations == 0).collect();
    assert!(idle.is_empty(), "nothing shows that these can fail: {idle:?}");
}
