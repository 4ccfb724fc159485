//! The messages of clients in each of the three protocols. Plain data: no sockets, no clock.

/// The password of every user that is made here.
const PASSWORD: &str = "linger bench";

/// A protocol, and what its clients ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// Linger's JSON.
    Json(Login),
    /// `dest: text`.
    Line,
    /// NATS: a subject for each client.
    Nats,
}

/// How a JSON client logs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Login {
    /// With its password, having registered before.
    Password,
    /// The same, and it wants to be pinged.
    Pinged,
    /// With the token of the last login, where it has one.
    Token,
}

/// What a client knows of itself.
#[derive(Clone, Default, Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// The server's number for it; only in JSON.
    pub(crate) id: i64,
    /// What the next login may be made with; only in JSON.
    pub(crate) token: Option<String>,
}

/// One thing that a client heard, as far as somebody cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ServerMessage<'a> {
    /// The login is through.
    Ready {
        id: i64,
        token: Option<&'a str>,
    },
    /// The login is refused, or the server ends the connection.
    Refused(&'a str),
    /// A chat with that text.
    Chat(&'a str),
    /// To be answered with [`Protocol::pong`].
    Ping,
    Other,
}

impl Protocol {
    /// What brings a client online. Those who are not known yet register in the same breath.
    pub(crate) fn hello(self, who: &Identity, register: bool) -> String {
        let name = &who.name;
        match self {
            Protocol::Line => format!("{name}\n{name}: here\n"),
            Protocol::Nats => format!("CONNECT {{\"verbose\":false}}\r\nSUB {name} 1\r\nPING\r\n"),
            Protocol::Json(login) => {
                let caps = match login {
                    Login::Password => "",
                    Login::Pinged => r#","caps":["ping"]"#,
                    Login::Token => r#","caps":["resume"]"#,
                };
                let account = format!(r#""name":"{name}","password":"{PASSWORD}""#);
                match &who.token {
                    Some(token) => format!("{{\"msgid\":1,\"token\":\"{token}\"{caps}}}\n"),
                    None if register => {
                        format!("{{\"msgid\":4,{account}}}\n{{\"msgid\":1,{account}{caps}}}\n")
                    }
                    None => format!("{{\"msgid\":1,{account}{caps}}}\n"),
                }
            }
        }
    }

    /// A chat. The text has no line end, and nothing that JSON escapes.
    pub(crate) fn chat(self, to: &Identity, text: &str, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let (name, id) = (&to.name, to.id);
        let written = match self {
            Protocol::Line => writeln!(out, "{name}: {text}"),
            Protocol::Nats => write!(out, "PUB {name} {}\r\n{text}\r\n", text.len()),
            Protocol::Json(_) => writeln!(out, r#"{{"msgid":6,"toid":{id},"msg":"{text}"}}"#),
        };
        written.expect("a vector takes everything");
    }

    /// The answer to a ping.
    pub(crate) fn pong(self) -> &'static str {
        match self {
            Protocol::Json(_) => "{\"msgid\":22}\n",
            Protocol::Line => "",
            Protocol::Nats => "PONG\r\n",
        }
    }

    /// What one line of the server says. Linger ends objects with LF for clients that do.
    pub(crate) fn parse(self, line: &str) -> ServerMessage<'_> {
        let line = line.trim_end_matches('\r');
        match self {
            Protocol::Line => match line.strip_prefix("from ").and_then(|rest| rest.split_once(": ")) {
                Some((_, "here")) => ServerMessage::Ready { id: 0, token: None },
                Some((_, text)) => ServerMessage::Chat(text),
                None => ServerMessage::Refused(line),
            },
            Protocol::Nats => match line {
                "PING" => ServerMessage::Ping,
                "PONG" => ServerMessage::Ready { id: 0, token: None },
                _ if line.starts_with("-ERR") => ServerMessage::Refused(line),
                _ if line.starts_with("MSG ") || line.starts_with("INFO ") => ServerMessage::Other,
                text => ServerMessage::Chat(text),
            },
            Protocol::Json(_) => hear_json(line),
        }
    }
}

fn hear_json(line: &str) -> ServerMessage<'_> {
    // The generator must stay cheaper than the server: what comes most is found without a parser.
    if line.starts_with(r#"{"msgid":6,"#) {
        return ServerMessage::Chat(between(line, r#""msg":""#, '"'));
    }
    if line.starts_with(r#"{"msgid":22"#) {
        return ServerMessage::Ping;
    }
    if line.starts_with(r#"{"msgid":2,"errno":0,"#) {
        let id = between(line, r#""id":"#, ',').parse().unwrap_or_default();
        let token = between(line, r#""token":""#, '"');
        return ServerMessage::Ready { id, token: (!token.is_empty()).then_some(token) };
    }
    let is_refusal = line.starts_with(r#"{"msgid":2,"#) || line.starts_with(r#"{"msgid":20,"#);
    if is_refusal || line.starts_with(r#"{"msgid":0,"#) {
        ServerMessage::Refused(line)
    } else {
        ServerMessage::Other
    }
}

/// The text between a key and a byte; empty where there is none.
fn between<'a>(line: &'a str, key: &str, end: char) -> &'a str {
    let Some((_, rest)) = line.split_once(key) else { return "" };
    rest.split([end, '}']).next().unwrap_or_default()
}

/// The users of one measurement, by number.
pub(crate) fn identities(prefix: &str, count: usize) -> Vec<Identity> {
    (0..count).map(|number| Identity { name: format!("{prefix}{number}"), ..Identity::default() }).collect()
}
