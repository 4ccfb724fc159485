//! What a typed line does to a session.
//!
//! Part of [`super::session`]: plain data, without sockets, terminal and clock.

use super::command::{self, Command, HELP};
use super::outbox::Kind;
use super::people::{Target, Unknown};
use super::session::Session;

impl Session {
    /// Takes one line of input.
    pub(super) fn typed(&mut self, line: &str, now_ms: u64) {
        match command::parse(line) {
            Ok(command) => self.obey(command, now_ms),
            Err(mistake) => self.trouble(mistake.to_string()),
        }
    }

    fn obey(&mut self, command: Command<'_>, now_ms: u64) {
        match command {
            Command::Nothing => {}
            Command::Help => HELP.iter().for_each(|line| self.answer((*line).to_owned())),
            Command::Friends => self.list(),
            Command::Quit => self.input_ended(now_ms),
            Command::To("") => self.target = None,
            Command::To(word) => self.aim(self.people.find_user(word).map(Target::User)),
            Command::Group(word) => self.aim(self.people.find_group(word).map(Target::Group)),
            Command::Add(word) => match self.people.find_user(word) {
                Ok(id) => self.ask(Kind::Add(id)),
                Err(unknown) => self.trouble(unknown.to_string()),
            },
            Command::Join(word) => match word.parse() {
                Ok(id) => self.ask(Kind::Join(id)),
                Err(_) => self.trouble(format!("a group is joined by its id, and {word} is none")),
            },
            Command::Create(name) => self.ask(Kind::Create(name.to_owned())),
            Command::Say(text) => self.say(text),
        }
    }

    fn list(&mut self) {
        let lines = self.people.summary();
        if lines.is_empty() {
            self.answer("no friends and no groups yet; see /help".into());
        }
        for line in lines {
            self.answer(line);
        }
    }

    fn aim(&mut self, target: Result<Target, Unknown>) {
        match target {
            Ok(target) => self.target = Some(target),
            Err(unknown) => self.trouble(unknown.to_string()),
        }
    }

    fn say(&mut self, text: &str) {
        let addressed = match self.target {
            Some(target) => Some(Ok((target, text))),
            None => self.people.addressed(text),
        };
        match addressed {
            Some(Ok((Target::User(id), text))) => self.ask(Kind::ToUser { id, text: text.to_owned() }),
            Some(Ok((Target::Group(id), text))) => self.ask(Kind::ToGroup { id, text: text.to_owned() }),
            Some(Err(unknown)) => self.trouble(unknown.to_string()),
            None => self.trouble("to whom? /to NAME, /group NAME, or begin the line with NAME:".into()),
        }
    }
}
