//! What the documents show happens as they show it.

use std::fs;
use std::thread;

use linger_server::protocol::errno::Errno;
use serde_json::json;

use super::generated::UNPLAYED;
use super::player::{Speaker, is_dialogue, play, words};
use super::{read, root, source};
use crate::common::{Home, Server, linger};

/// The users of the protocol's examples, in the order of their numbers.
const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// Dialogues that are played at once.
const AT_ONCE: usize = 4;

/// The dialogue of the README and the tutorial. Each `_` stands for the next line of JSON on the page, and says whose it is.
/// The last two lines only wait until the chat before them is kept.
const PASTED: &str = r#"alice> _
alice> _
alice< _
alice< _
bob> _
bob> _
bob< _
bob< _
alice> _
bob< _
bob closes
alice> _
alice> {"msgid":9,"groupid":99}
alice< {"msgid":0,"errno":14,"errmsg":"there is no such group","re":9}
"#;

/// How it goes on in the README.
const README: &str = r#"back> _
back< _
$ linger kick alice --reason "lunch break"
alice< _
"#;

/// How it goes on in the tutorial.
const TUTORIAL: &str = r#"$ linger kick alice --reason "lunch break"
alice< _
back> _
back< _
again> {"msgid":1,"name":"alice","password":"wonder"}
again< {"msgid":2,"errno":0,"id":1,"name":"alice"}
again> _
again< _
back> _
back> _
again< _
"#;

/// The texts between lines of three backquotes.
fn blocks(page: &str) -> Vec<&str> {
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.split_once('\n')).map(|(_, text)| text).collect()
}

fn dialogues(page: &str) -> Vec<&str> {
    blocks(page).into_iter().filter(|block| is_dialogue(block)).collect()
}

#[test]
fn every_dialogue_of_the_protocol_happens_as_it_is_written() {
    let page = read(&root().join("docs/protocol.md"));
    let dialogues = dialogues(&page);
    assert!(dialogues.len() > 20, "{} dialogues", dialogues.len());
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let mine = dialogues.iter().skip(first).step_by(AT_ONCE);
            scope.spawn(move || mine.for_each(|dialogue| play(dialogue, &USERS)));
        }
    });
}

#[test]
fn what_the_readme_and_the_tutorial_have_pasted_is_answered_as_they_say() {
    for (page, rest) in [("README.md", README), ("docs/tutorial.md", TUTORIAL)] {
        let text = read(&root().join(page));
        let code = text.lines().filter_map(|line| line.strip_prefix("    "));
        let mut said = code.filter(|line| line.starts_with("{\"msgid\""));
        let mut dialogue = String::new();
        for line in [PASTED, rest].concat().lines() {
            match line.strip_suffix('_') {
                Some(who) => dialogue.extend([who, said.next().expect("a line for each of these"), "\n"]),
                None => dialogue.extend([line, "\n"]),
            }
        }
        play(&dialogue, &[]);
        assert_eq!(said.next(), None, "{page} has a line that is not played");
    }
}

#[test]
fn every_msgid_is_on_the_page_with_an_example() {
    let page = read(&root().join("docs/protocol.md"));
    let dialogues = dialogues(&page).concat();
    let server = Server::start(&[]);
    let mut client = Speaker::to(server.addr);
    for msgid in 0..60 {
        let answer = client.asks(&json!({"msgid": msgid, "seq": "unknown"}));
        let is_sent_by_clients = !answer.contains("is not one that clients send");
        let row = page.lines().find(|line| line.starts_with(&format!("| [{msgid}](#")));
        let says_so = row.is_some_and(|row| !row.contains("| server |"));
        assert_eq!(says_so, is_sent_by_clients, "{msgid}: {row:?}, and the server says {answer}");
        if row.is_some() {
            let ways = [",", "}"].map(|end| format!("\"msgid\":{msgid}{end}"));
            assert!(ways.iter().any(|way| dialogues.contains(way)), "no example of {msgid}");
        }
    }
}

#[test]
fn every_field_that_means_something_in_a_request_is_on_the_page() {
    let page = read(&root().join("docs/protocol.md"));
    let mut code = String::new();
    source(&root().join("src/server/protocol"), &mut code);
    let (_, declared) = code.split_once("\nkeys! {\n").unwrap();
    let (declared, _) = declared.split_once("\n}").unwrap();
    let words: Vec<&str> = declared.split('"').skip(1).step_by(2).collect();
    assert!(words.len() > 15, "{words:?}");
    for word in words {
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn every_errno_is_in_a_dialogue_unless_it_takes_a_flood_or_a_disk_that_fails() {
    let page = read(&root().join("docs/protocol.md"));
    let dialogues = dialogues(&page).concat();
    for errno in Errno::ALL {
        let is_shown = dialogues.contains(&format!("\"errno\":{},", errno.number()));
        assert_ne!(is_shown, UNPLAYED.contains(errno), "{errno:?}");
    }
}

#[test]
fn the_configuration_file_that_is_shown_is_taken_and_the_pair_of_options_is_refused() {
    let page = read(&root().join("docs/configuration.md"));
    let file = blocks(&page).into_iter().find(|block| block.contains("max-frame = ")).unwrap();
    let home = Home::new();
    let path = home.path().join("linger.toml");
    fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    Server::start_at(&home, &["--config", path, "--listen", "127.0.0.1:0", "--line", "127.0.0.1:0"]).stop();

    let (_, example) = page.split_once("    $ linger ").unwrap();
    let [command, complaint] = [0, 1].map(|line| example.lines().nth(line).unwrap().trim());
    let done = linger(&words(command).iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((done.stderr.trim_end(), done.code), (complaint, Some(2)));
}

#[test]
fn every_value_of_linger_stats_is_explained() {
    let page = read(&root().join("docs/operations.md"));
    let stats = Server::start(&[]).cli_json(&["stats"]);
    for name in stats.as_object().unwrap().keys() {
        let (stem, _) = name.rsplit_once('_').unwrap_or((name, ""));
        let ways = [format!("`{name}`"), format!("`{stem}_…`")];
        assert!(name.starts_with("left_") || ways.iter().any(|way| page.contains(way)), "{name}");
    }
}
