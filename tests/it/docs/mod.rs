//! The documents say what the program says.
//!
//! | module | promise |
//! |---|---|
//! | `generated` | tables that the program can write itself are what it writes |
//! | `limits` | each bound in `docs/limits.md` is the one of its option or constant |
//! | `examples` | what is shown happens as it is shown: each dialogue, played by `player` |
//! | `links` | links lead somewhere, and the README stays short |

mod examples;
mod generated;
mod limits;
mod links;
mod player;

use std::fs;
use std::path::{Path, PathBuf};

/// The directory of the project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// The files with that extension in that directory, in order of their names.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

/// The pages of `docs/`.
fn pages() -> Vec<PathBuf> {
    files(&root().join("docs"), "md")
}

/// Appends the text of every file of source in that directory and below.
fn source(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&read(&path));
        }
    }
}
