//! Which folder of the server uses which: each only those before it, and no files in a circle. And which crate uses which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders and single files of the server, the lowest first. Each uses only those before it.
const LAYERS: [&str; 24] = [
    "sync",
    "ids",
    "ip_block",
    "escape",
    "shrink",
    "channel",
    "metrics",
    "clock",
    "protocol",
    "store",
    "message",
    "offline_queue",
    "registry",
    "auth",
    "handles",
    "main_loop",
    "config",
    "net",
    "worker",
    "logs",
    "admin",
    "process",
    "server",
    "testing",
];

/// Every file of the server as a path of modules, with its own code: no comments, no tests.
fn modules() -> BTreeMap<Vec<String>, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server");
    let mut found = BTreeMap::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let module = module_of(path.strip_prefix(&source).unwrap());
            let is_server = module.first().is_some_and(|top| LAYERS.contains(&top.as_str()));
            if is_server
                && module.last().is_none_or(|name| name != "tests")
                && !module.contains(&"tests".into())
            {
                found.insert(module, own_code(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

fn module_of(path: &Path) -> Vec<String> {
    let without_extension: PathBuf = path.with_extension("");
    let parts = without_extension.iter().map(|part| part.to_str().unwrap().to_owned());
    parts.filter(|part| part != "mod").collect()
}

fn own_code(text: &str) -> String {
    let own = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    own.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules that a file names by `use`, or in a path that begins with `crate`.
fn used_by(module: &[String], code: &str, all: &BTreeMap<Vec<String>, String>) -> BTreeSet<Vec<String>> {
    let mut used = BTreeSet::new();
    let mut note = |path: &str| {
        let mut parts: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
        match parts[0].as_str() {
            "crate" => drop(parts.remove(0)),
            "super" => {
                let mut base = module.to_vec();
                while parts.first().is_some_and(|part| part == "super") {
                    parts.remove(0);
                    base.pop();
                }
                parts.splice(0..0, base);
            }
            _ => return,
        }
        let longest =
            (1..=parts.len()).rev().map(|count| parts[..count].to_vec()).find(|path| all.contains_key(path));
        used.extend(longest.filter(|path| path != module));
    };
    for statement in code.split("use ").skip(1).filter_map(|rest| rest.split_once(';')).map(|(tree, _)| tree)
    {
        if statement.starts_with("crate::") || statement.starts_with("super::") {
            for leaf in leaves(statement) {
                note(&leaf);
            }
        }
    }
    for path in code.split("crate::").skip(1) {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
        note(&format!("crate::{}", path[..end].trim_end_matches(':')));
    }
    used
}

/// The paths of a tree of imports.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().to_owned()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for c in inner.chars().chain([',']) {
        match c {
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                part.push(c);
            }
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| leaves(&format!("{head}{}", part.trim()))).collect()
}

fn imports() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let all = modules();
    assert!(all.len() > 100, "only {} files", all.len());
    all.iter().map(|(module, code)| (module.clone(), used_by(module, code, &all))).collect()
}

#[test]
fn a_folder_of_the_server_uses_only_those_below_it() {
    let place = |module: &[String]| LAYERS.iter().position(|layer| *layer == module[0]).unwrap();
    let mut wrong = Vec::new();
    for (module, used) in &imports() {
        let above = used.iter().filter(|other| place(other) > place(module));
        wrong.extend(above.map(|other| format!("{} uses {}", module.join("::"), other.join("::"))));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_files_of_the_server_use_each_other_in_a_circle() {
    let mut imports = imports();
    // What uses nothing that is left is in no circle.
    loop {
        let free: Vec<_> = imports
            .iter()
            .filter(|(_, used)| used.iter().all(|other| !imports.contains_key(other)))
            .map(|(module, _)| module.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        for module in free {
            imports.remove(&module);
        }
    }
    let left: Vec<_> = imports.keys().map(|module| module.join("::")).collect();
    assert!(left.is_empty(), "in circles, or above one: {left:#?}");
}

/// The crates of this project that a crate's `Cargo.toml` names, also for its tests.
fn own_crates_of(member: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).unwrap();
    assert!(manifest.contains("[dependencies]"), "{member}");
    let names = manifest.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| name.starts_with("linger-")).map(str::to_owned).collect()
}

#[test]
fn the_server_and_the_stress_tool_use_no_other_crate_of_the_project() {
    assert_eq!(own_crates_of("src/server"), [""; 0]);
    assert_eq!(own_crates_of("src/stress"), [""; 0]);
}

#[test]
fn the_terminal_client_takes_only_text_framing_and_locks_from_the_server() {
    assert_eq!(own_crates_of("src/chat"), ["linger-server"]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/chat");
    let mut used = BTreeSet::new();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let paths = text.split("linger_server::").skip(1);
            used.extend(paths.map(|path| path.split("::").next().unwrap_or_default().to_owned()));
        }
    }
    let allowed = ["escape", "protocol", "sync"].map(str::to_owned);
    assert_eq!(used, BTreeSet::from(allowed));
}
