//! Links of the README and the pages lead somewhere, and the README stays short.

use std::path::{Path, PathBuf};

use super::{files, pages, read, root, source};

/// Bytes that the README has at most: whoever opens it reads it to the end.
const README_BYTES: usize = 12 * 1024;

/// All documents: those at the top and the pages of `docs/`.
fn documents() -> Vec<PathBuf> {
    let mut all = files(root(), "md");
    all.extend(pages());
    all
}

#[test]
fn the_readme_is_short() {
    let bytes = read(&root().join("README.md")).len();
    assert!(bytes <= README_BYTES, "{bytes} bytes; what is not for everybody belongs to docs/");
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let readme = read(&root().join("README.md"));
    for page in pages() {
        let link = format!("](docs/{})", page.file_name().unwrap().to_str().unwrap());
        assert!(readme.contains(&link), "{link}");
    }
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_in_it() {
    let documents = documents();
    assert!(documents.len() > 8, "{documents:?}");
    let mut count = 0;
    for document in &documents {
        let text = without_code(&read(document));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("https://") || link.starts_with("http://") || link.starts_with("mailto:") {
                continue;
            }
            let place = format!("{}: {link}", document.display());
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, h)| (file, Some(h)));
            let target = if file.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap_or(Path::new(".")).join(file)
            };
            assert!(target.exists(), "{place}: no such file");
            if let Some(heading) = heading {
                let text = without_code(&read(&target));
                let headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(
                    headings.collect::<Vec<_>>().contains(&heading.to_owned()),
                    "{place}: no such heading"
                );
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count} links");
}

#[test]
fn every_test_that_the_page_of_tests_names_is_there() {
    let page = read(&root().join("docs/testing.md"));
    let mut code = String::new();
    for directory in ["src", "tests"] {
        source(&root().join(directory), &mut code);
    }
    let names: Vec<&str> = page.split('`').filter_map(|part| part.strip_suffix('…')).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        assert!(code.contains(&format!("fn {name}")), "{name}");
    }
}

#[test]
fn every_file_that_contributors_are_sent_to_is_there() {
    let page = read(&root().join("CONTRIBUTING.md"));
    let is_path = |part: &&str| ["src/", "tests/", "docs/"].iter().any(|begin| part.starts_with(begin));
    let paths: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_path).collect();
    assert!(paths.len() > 5, "{paths:?}");
    for path in paths {
        assert!(root().join(path).exists(), "{path}");
    }
}

/// Without the blocks of code, in which brackets and `#` are something else.
fn without_code(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence && !line.starts_with("    ")
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// What a heading is called in links.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
