//! Lists of mutations: what stands in the source, what it is broken to, and who has to find that out.
//!
//! `scripts/mutants.sh` reads the same lists and tries whether it is so.

use std::path::Path;

/// One breakage.
#[derive(Default)]
pub(super) struct Mutation {
    pub(super) name: String,
    file: String,
    /// The model that has to fail, or what the simulation may say when it does.
    pub(super) finders: Vec<String>,
    /// What stands there, and what is put in its place.
    pairs: Vec<(String, String)>,
}

/// Reads a list.
pub(super) fn read(list: &str) -> Vec<Mutation> {
    let mut all: Vec<Mutation> = Vec::new();
    let mut replacing = true;
    for line in list.lines() {
        if let Some(name) = line.strip_prefix("= ") {
            all.push(Mutation { name: name.to_owned(), ..Mutation::default() });
            replacing = true;
        }
        let Some(mutation) = all.last_mut() else { continue };
        if let Some(file) = line.strip_prefix("file ") {
            file.clone_into(&mut mutation.file);
        } else if let Some(finder) = line.strip_prefix("model ").or_else(|| line.strip_prefix("says ")) {
            mutation.finders.push(finder.to_owned());
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

/// Panics unless every mutation can be applied to the source as it is.
pub(super) fn assert_they_fit(mutations: &[Mutation]) {
    for Mutation { name, file, finders, pairs } in mutations {
        let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(!pairs.is_empty(), "{name}: nothing is changed");
        assert!(!finders.is_empty(), "{name}: nobody has to find it out");
        for (old, new) in pairs {
            assert_eq!(source.matches(old).count(), 1, "{name}: {old}");
            assert_ne!(old, new, "{name}");
        }
    }
    let names: std::collections::BTreeSet<&str> = mutations.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names.len(), mutations.len(), "each has a name of its own");
}
