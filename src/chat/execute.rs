//! Carries out a typed line on a session.
//!
//! Part of [`super::session`]: plain data, without sockets, terminal and clock.

use super::command::{self, Command, HELP};
use super::contacts::{Target, Unknown};
use super::outbox::Kind;
use super::session::Session;

impl Session {
    /// Carries out one line of input.
    pub(super) fn execute(&mut self, line: &str, now_ms: u64) {
        match command::parse(line) {
            Ok(command) => self.execute_command(command, now_ms),
            Err(mistake) => self.show_error(mistake.to_string()),
        }
    }

    fn execute_command(&mut self, command: Command<'_>, now_ms: u64) {
        match command {
            Command::Empty => {}
            Command::Help => HELP.iter().for_each(|line| self.show_answer((*line).to_owned())),
            Command::Friends => self.list_contacts(),
            Command::Quit => self.input_ended(now_ms),
            Command::To("") => self.target = None,
            Command::To(word) => self.set_target(self.contacts.find_user(word).map(Target::User)),
            Command::Group(word) => self.set_target(self.contacts.find_group(word).map(Target::Group)),
            Command::Add(word) => match self.contacts.find_user(word) {
                Ok(id) => self.request(Kind::Add(id)),
                Err(unknown) => self.show_error(unknown.to_string()),
            },
            Command::Join(word) => match word.parse() {
                Ok(id) => self.request(Kind::Join(id)),
                Err(_) => self.show_error(format!("a group is joined by its id, and {word} is none")),
            },
            Command::Create(name) => self.request(Kind::Create(name.to_owned())),
            Command::Say(text) => self.send_chat(text),
        }
    }

    fn list_contacts(&mut self) {
        let lines = self.contacts.summary();
        if lines.is_empty() {
            self.show_answer("no friends and no groups yet; see /help".into());
        }
        for line in lines {
            self.show_answer(line);
        }
    }

    fn set_target(&mut self, target: Result<Target, Unknown>) {
        match target {
            Ok(target) => self.target = Some(target),
            Err(unknown) => self.show_error(unknown.to_string()),
        }
    }

    fn send_chat(&mut self, text: &str) {
        let parse_addressed = match self.target {
            Some(target) => Some(Ok((target, text))),
            None => self.contacts.parse_addressed(text),
        };
        match parse_addressed {
            Some(Ok((Target::User(id), text))) => self.request(Kind::ToUser { id, text: text.to_owned() }),
            Some(Ok((Target::Group(id), text))) => self.request(Kind::ToGroup { id, text: text.to_owned() }),
            Some(Err(unknown)) => self.show_error(unknown.to_string()),
            None => self.show_error("to whom? /to NAME, /group NAME, or begin the line with NAME:".into()),
        }
    }
}
