//! Parses a typed line.
//!
//! Plain values and functions. It only cuts names out; [`super::contacts`] knows whom they mean.

/// The list of commands, for `/help`.
pub(super) const HELP: &[&str] = &[
    "/to NAME|ID       write to that user from now on; without a name, to nobody",
    "/group NAME|ID    write to that group from now on",
    "/friends          friends and groups, with their state",
    "/add NAME|ID      add a friend",
    "/create NAME      create a group",
    "/join ID          join a group",
    "/quit             leave, when all that was sent is answered",
    "//text            a text that begins with a slash",
    "13: text          to one user, also bob: text, or @group: text, while /to is not set",
];

/// One line of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command<'a> {
    /// Show the commands.
    Help,
    /// Write to that user from now on; to nobody where the name is empty.
    To(&'a str),
    /// Write to that group from now on.
    Group(&'a str),
    /// Show friends and groups.
    Friends,
    /// Add that user as a friend.
    Add(&'a str),
    /// Join that group.
    Join(&'a str),
    /// Create a group of that name.
    Create(&'a str),
    /// Leave.
    Quit,
    /// Send that text.
    Say(&'a str),
    /// An empty line.
    Empty,
}

/// A line that begins with a slash and is no command, or lacks what the command needs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("there is no command {0}; /help lists them")]
    NoSuchCommand(String),
    #[error("{command} needs {what}")]
    Missing { command: &'static str, what: &'static str },
}

/// Reads a line. Spaces around it and around its parts do not count.
pub(super) fn parse(line: &str) -> Result<Command<'_>, CommandError> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Command::Empty);
    }
    if line.starts_with("//") {
        return Ok(Command::Say(&line[1..]));
    }
    if !line.starts_with('/') {
        return Ok(Command::Say(line));
    }
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let needs = |command, what| {
        if rest.is_empty() { Err(CommandError::Missing { command, what }) } else { Ok(rest) }
    };
    match word {
        "/help" => Ok(Command::Help),
        "/to" => Ok(Command::To(rest)),
        "/group" => needs("/group", "the name or id of a group").map(Command::Group),
        "/friends" => Ok(Command::Friends),
        "/add" => needs("/add", "a name or id").map(Command::Add),
        "/join" => needs("/join", "the id of a group").map(Command::Join),
        "/create" => needs("/create", "a name for the group").map(Command::Create),
        "/quit" => Ok(Command::Quit),
        _ => Err(CommandError::NoSuchCommand(word.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_like_the_help() {
        for (line, command) in [
            ("/help", Command::Help),
            (" /to  zhang san ", Command::To("zhang san")),
            ("/to", Command::To("")),
            ("/group 5", Command::Group("5")),
            ("/friends", Command::Friends),
            ("/add bob", Command::Add("bob")),
            ("/join 5", Command::Join("5")),
            ("/create the team", Command::Create("the team")),
            ("/quit", Command::Quit),
            ("//etc", Command::Say("/etc")),
            ("bob: hi", Command::Say("bob: hi")),
            ("", Command::Empty),
            (" \t", Command::Empty),
        ] {
            assert_eq!(parse(line), Ok(command), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_command_says_so() {
        assert_eq!(
            parse("/tell bob").unwrap_err().to_string(),
            "there is no command /tell; /help lists them"
        );
        assert_eq!(parse("/add ").unwrap_err().to_string(), "/add needs a name or id");
    }

    #[test]
    fn the_help_names_every_command() {
        for word in ["/to", "/group", "/friends", "/add", "/create", "/join", "/quit"] {
            assert!(HELP.iter().any(|line| line.starts_with(word)), "{word}");
        }
    }
}
