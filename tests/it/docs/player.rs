//! Plays a dialogue of the documents against a real server.
//!
//! A block is a dialogue when a line of it reads `NAME> TEXT` (that client sends it) or `NAME< TEXT` (that client gets
//! it); `NAME line>` is a client of the line protocol. `NAME closes` ends its connection, `$ linger …` is a command of
//! the administrator, and `$ linger serve …` in front says how the server was started.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::common::{DEADLINE, Server, eventually};

/// What differs from run to run, so that only its kind is compared.
const VOLATILE: [&str; 5] = ["time", "token", "epoch", "mid", "retry_after_ms"];

/// A line of a dialogue.
enum Line<'a> {
    Says(&'a str, &'a str),
    Hears(&'a str, &'a str),
    Closes(&'a str),
    Command(Vec<String>),
}

fn line(text: &str) -> Option<Line<'_>> {
    if let Some(command) = text.strip_prefix("$ linger ") {
        return Some(Line::Command(words(command)));
    }
    if let Some(who) = text.strip_suffix(" closes") {
        return Some(Line::Closes(who));
    }
    let at = text.find(['<', '>'])?;
    let (who, said) = (&text[..at], text[at + 1..].strip_prefix(' ')?);
    let name = who.strip_suffix(" line").unwrap_or(who);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    Some(if text[at..].starts_with('>') { Line::Says(who, said) } else { Line::Hears(who, said) })
}

/// The words of a command, those in double quotes as one.
pub(super) fn words(command: &str) -> Vec<String> {
    let parts = command
        .split('"')
        .enumerate()
        .flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
    parts.map(ToOwned::to_owned).collect()
}

pub(super) fn is_dialogue(block: &str) -> bool {
    block.lines().any(|text| matches!(line(text), Some(Line::Says(..) | Line::Hears(..))))
}

/// One connection of somebody.
pub(super) struct Speaker(BufReader<TcpStream>);

impl Speaker {
    pub(super) fn to(addr: SocketAddr) -> Speaker {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Speaker(BufReader::new(stream))
    }

    pub(super) fn asks(&mut self, request: &Value) -> String {
        self.says(&request.to_string());
        self.hears().expect("an answer, not the end")
    }

    fn says(&mut self, text: &str) {
        self.0.get_mut().write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// The next line; none at the end of the stream.
    fn hears(&mut self) -> Option<String> {
        let mut text = String::new();
        let bytes = self.0.read_line(&mut text).expect("a line, or the end, within the deadline");
        (bytes > 0).then(|| text.trim_end().to_owned())
    }

    /// Its address, as the server sees it.
    fn peer(&self) -> String {
        self.0.get_ref().local_addr().unwrap().to_string()
    }
}

/// A server, everybody who has spoken, and the dialogue.
struct Stage<'a> {
    server: Server,
    speakers: BTreeMap<String, Speaker>,
    dialogue: &'a str,
    /// What the page writes for what differs from run to run, and what it is in this run.
    in_this_run: BTreeMap<String, String>,
}

/// Plays it on a server of its own. `users` are registered there, and logged in where they speak.
pub(super) fn play(dialogue: &str, users: &[&str]) {
    let lines =
        dialogue.lines().map(|text| line(text).unwrap_or_else(|| panic!("no line of a dialogue: {text}")));
    let lines: Vec<_> = lines.collect();
    let flags = match &lines[0] {
        Line::Command(words) if words[0] == "serve" => words[1..].iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let server = Server::start(&flags);
    let mut stage = Stage { server, speakers: BTreeMap::new(), dialogue, in_this_run: BTreeMap::new() };
    stage.admit(users, &lines);
    for line in &lines {
        stage.act(line);
    }
    // Nobody gets more than the page says.
    for (who, mut speaker) in stage.speakers {
        if !who.ends_with(" line") {
            assert_eq!(
                speaker.asks(&json!({"msgid": 22})),
                r#"{"msgid":23}"#,
                "{who} gets more in\n{dialogue}"
            );
        }
    }
}

impl Stage<'_> {
    fn admit(&mut self, users: &[&str], lines: &[Line<'_>]) {
        let mut first = Speaker::to(self.server.addr);
        for name in users {
            first.asks(&json!({"msgid": 4, "name": name, "password": "wonder"}));
        }
        for name in users {
            let is_theirs =
                |line: &Line<'_>| matches!(line, Line::Says(who, _) | Line::Hears(who, _) if who == name);
            if lines.iter().any(is_theirs) {
                let mut speaker = Speaker::to(self.server.addr);
                let answer = speaker.asks(&json!({"msgid": 1, "name": name, "password": "wonder"}));
                assert!(answer.starts_with(r#"{"msgid":2,"errno":0"#), "{answer}");
                self.speakers.insert((*name).to_owned(), speaker);
            }
        }
    }

    fn act(&mut self, line: &Line<'_>) {
        match line {
            Line::Command(words) if words[0] == "serve" => {}
            Line::Command(words) => {
                let done = self.server.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
                assert_eq!(done.code, Some(0), "{done:?} in\n{}", self.dialogue);
            }
            Line::Closes(who) => {
                let speaker = self.speakers.remove(*who).expect("somebody who is there");
                let peer = speaker.peer();
                drop(speaker);
                eventually("the end is noticed", || self.state_of(&peer).is_none_or(|state| state != "live"));
            }
            Line::Says(who, text) => self.says(who, text),
            Line::Hears(who, text) => self.hears(who, text),
        }
    }

    fn says(&mut self, who: &str, text: &str) {
        let known = self.in_this_run.iter();
        let text = known.fold(text.to_owned(), |text, (page, run)| text.replace(page, run));
        let is_first = !self.speakers.contains_key(who);
        let speaker = self.speaker(who);
        speaker.says(&text);
        if is_first && who.ends_with(" line") {
            let peer = speaker.peer();
            let is_judged = || self.state_of(&peer).is_some_and(|state| state != "new");
            eventually("the first line is judged", is_judged);
        }
    }

    fn hears(&mut self, who: &str, text: &str) {
        let dialogue = self.dialogue;
        let heard = self.speaker(who).hears();
        let heard = heard.unwrap_or_else(|| panic!("{who} gets the end instead of\n{text}\nin\n{dialogue}"));
        assert!(self.are_alike(text, &heard), "{who} gets\n{heard}\ninstead of\n{text}\nin\n{dialogue}");
        let peer = self.speaker(who).peer();
        let has_left = |stage: &Self| stage.state_of(&peer).is_none_or(|state| state == "lingering");
        if text.starts_with(r#"{"msgid":20,"#) || text.starts_with("error: ") && has_left(self) {
            let rest = self.speakers.remove(who).and_then(|mut speaker| speaker.hears());
            assert_eq!(rest, None, "{who} gets more than a goodbye in\n{dialogue}");
        }
    }

    fn speaker(&mut self, who: &str) -> &mut Speaker {
        let server = &self.server;
        self.speakers.entry(who.to_owned()).or_insert_with(|| {
            Speaker::to(if who.ends_with(" line") { server.line_addr() } else { server.addr })
        })
    }

    /// The state of the channel with that address at its other end.
    fn state_of(&self, peer: &str) -> Option<String> {
        let channel = self.server.channels().into_iter().find(|entry| entry["peer"] == peer)?;
        channel["state"].as_str().map(ToOwned::to_owned)
    }

    /// True exactly when they are the same but for what differs from run to run, which is noted.
    fn are_alike(&mut self, page: &str, run: &str) -> bool {
        match (serde_json::from_str(page), serde_json::from_str(run)) {
            (Ok(page), Ok(run)) => self.are_alike_under("", &page, &run),
            _ => page == run,
        }
    }

    fn are_alike_under(&mut self, key: &str, page: &Value, run: &Value) -> bool {
        match (page, run) {
            (Value::Object(page), Value::Object(run)) => {
                page.keys().eq(run.keys())
                    && page.iter().all(|(key, value)| self.are_alike_under(key, value, &run[key]))
            }
            (Value::Array(page), Value::Array(run)) => {
                page.len() == run.len()
                    && page.iter().zip(run).all(|(page, run)| self.are_alike_under("", page, run))
            }
            // Lists of a login answer hold objects as strings.
            (Value::String(page), Value::String(run)) if key.is_empty() => self.are_alike(page, run),
            _ if page == run => true,
            _ if VOLATILE.contains(&key) => {
                let (page, run) = (plain(page), plain(run));
                let is_alike = shape(&page) == shape(&run);
                self.in_this_run.insert(page, run);
                is_alike
            }
            _ => false,
        }
    }
}

/// A string without its quotes, or a number.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// What kind of value it is: a number, or where hex digits, as in times and tokens, and other characters are.
fn shape(text: &str) -> String {
    if text.chars().all(|c| c.is_ascii_digit()) {
        return "number".to_owned();
    }
    text.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect()
}
