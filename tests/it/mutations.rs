//! The patches in `tests/mutations` fit the source, and name models and sayings that are there.
//!
//! Whether each mutation is found out, `scripts/mutants.sh` tries.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MODELS: &str = "src/server/testing/models";

/// One patch.
struct Mutation {
    file: String,
    /// The lines above the diff: its name, and who has to find it.
    head: Vec<String>,
    /// What it changes.
    source: String,
    /// What each hunk finds, and what it puts there.
    hunks: Vec<(String, String)>,
}

impl Mutation {
    fn read(path: &Path) -> Self {
        let text = text_of(path);
        let (head, diff) = text.split_once("\n\n--- a/").expect("a head, an empty line and a diff");
        let (source, diff) = diff.split_once('\n').unwrap();
        assert!(diff.starts_with(&format!("+++ b/{source}\n@@ ")), "{}: one file", path.display());
        let hunks = diff.split("\n@@ ").skip(1).map(|hunk| {
            let side = |sign| {
                let lines = hunk.lines().skip(1).filter(|line| line.starts_with([' ', sign]));
                lines.fold(String::new(), |text, line| text + &line[1..] + "\n")
            };
            (side('-'), side('+'))
        });
        Mutation {
            file: path.file_stem().unwrap().to_string_lossy().into_owned(),
            head: head.lines().map(str::to_owned).collect(),
            source: source.to_owned(),
            hunks: hunks.collect(),
        }
    }

    /// Who has to find it: models, or what the simulation may say.
    fn finders(&self, word: &str) -> Vec<&str> {
        let finders: Vec<_> = self.head[1..].iter().filter_map(|line| line.strip_prefix(word)).collect();
        assert!(!finders.is_empty(), "{}: nobody has to find it", self.file);
        assert_eq!(finders.len(), self.head.len() - 1, "{}: {:?}", self.file, self.head);
        finders
    }
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a directory of the project whose name ends so.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                files.push(path);
            }
        }
    }
    files
}

fn mutations(kind: &str) -> Vec<Mutation> {
    files(&format!("tests/mutations/{kind}"), ".patch").iter().map(|path| Mutation::read(path)).collect()
}

/// Every model, with its module.
fn models() -> BTreeSet<String> {
    let tests = |path: PathBuf| {
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = text_of(&path);
        let names = text.split("#[test]\nfn ").skip(1).map(|rest| rest.split('(').next().unwrap_or_default());
        names.map(|name| format!("{module}::{name}")).collect::<Vec<_>>()
    };
    files(MODELS, ".rs").into_iter().flat_map(tests).collect()
}

#[test]
fn every_mutation_applies_to_the_source_as_it_is() {
    for mutation in mutations("") {
        let Mutation { file, head, source, hunks } = &mutation;
        assert_eq!(
            head[0].replace([',', '\''], "").replace(' ', "-"),
            *file,
            "a file is named like its mutation"
        );
        let text = text_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
        for (old, new) in hunks {
            assert_eq!(text.matches(old).count(), 1, "{file}: has to be in {source} exactly once:\n{old}");
            assert_ne!(old, new, "{file}");
        }
    }
}

#[test]
fn every_model_has_a_mutation_that_it_must_find() {
    let mut idle = models();
    assert!(!idle.is_empty());
    for mutation in mutations("models") {
        let [model] = mutation.finders("model ")[..] else {
            panic!("{}: one model has to find it", mutation.file)
        };
        assert!(models().contains(model), "{}: no model {model}", mutation.file);
        idle.remove(model);
    }
    assert!(idle.is_empty(), "nothing shows that these can fail: {idle:?}");
}

#[test]
fn what_the_simulation_has_to_say_of_a_mutation_is_something_it_can_say() {
    let sources: Vec<_> = files("src", ".rs").iter().map(|path| text_of(path)).collect();
    for mutation in mutations("simulation") {
        for finder in mutation.finders("says ") {
            let is_said = sources.iter().any(|source| source.contains(finder));
            assert!(is_said, "{}: {finder}", mutation.file);
        }
    }
}
