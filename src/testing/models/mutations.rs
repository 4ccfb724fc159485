//! The list of mutations fits the source: it names lines and models that are there.
//!
//! Whether each mutation is found out, `scripts/mutants.sh` tries. This runs with every test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const LIST: &str = include_str!("mutations.txt");

/// The files of models, by module.
const MODELS: [(&str, &str); 5] = [
    ("mailbox", include_str!("mailbox.rs")),
    ("names", include_str!("names.rs")),
    ("queue", include_str!("queue.rs")),
    ("registry", include_str!("registry.rs")),
    ("step", include_str!("step.rs")),
];

#[derive(Default)]
struct Mutation {
    name: String,
    file: String,
    model: String,
    /// What stands there, and what is put in its place.
    pairs: Vec<(String, String)>,
}

fn mutations() -> Vec<Mutation> {
    let mut all: Vec<Mutation> = Vec::new();
    let mut replacing = true;
    for line in LIST.lines() {
        if let Some(name) = line.strip_prefix("= ") {
            all.push(Mutation { name: name.to_owned(), ..Mutation::default() });
            replacing = true;
        }
        let Some(mutation) = all.last_mut() else { continue };
        if let Some(file) = line.strip_prefix("file ") {
            file.clone_into(&mut mutation.file);
        } else if let Some(model) = line.strip_prefix("model ") {
            model.clone_into(&mut mutation.model);
        } else if let Some(old) = line.strip_prefix('-') {
            if std::mem::take(&mut replacing) {
                mutation.pairs.push(Default::default());
            }
            mutation.pairs.last_mut().unwrap().0.extend([old, "\n"]);
        } else if let Some(new) = line.strip_prefix('+') {
            replacing = true;
            mutation.pairs.last_mut().expect("first what stands there").1.extend([new, "\n"]);
        }
    }
    all
}

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
    for mutation in mutations() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&mutation.file);
        let source = std::fs::read_to_string(path).unwrap();
        assert!(!mutation.pairs.is_empty(), "{}: nothing is changed", mutation.name);
        for (old, new) in &mutation.pairs {
            assert_eq!(source.matches(old).count(), 1, "{}: {old}", mutation.name);
            assert_ne!(old, new, "{}", mutation.name);
        }
    }
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
    for mutation in mutations() {
        *found.get_mut(&mutation.model).unwrap_or_else(|| panic!("no model {}", mutation.model)) += 1;
    }
    let idle: Vec<_> = found.into_iter().filter(|(_, mutations)| *mutations == 0).collect();
    assert!(idle.is_empty(), "nothing shows that these can fail: {idle:?}");
}
