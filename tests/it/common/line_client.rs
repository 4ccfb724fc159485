//! The other client: it speaks lines, and believes nothing either.

use super::{Client, DEADLINE, Server};

/// One connection to a server's line port.
pub(crate) struct LineClient {
    wire: Client,
    name: String,
    markers: u32,
}

impl LineClient {
    #[track_caller]
    pub(crate) fn connect(server: &Server) -> LineClient {
        LineClient::over(Client::to(server.line_addr()))
    }

    /// A connection whose kernel takes only a little.
    #[track_caller]
    pub(crate) fn with_small_window(server: &Server) -> LineClient {
        LineClient::over(Client::with_small_window_to(server.line_addr()))
    }

    fn over(wire: Client) -> LineClient {
        LineClient { wire, name: String::new(), markers: 0 }
    }

    /// The connection itself, for what the server says about it.
    pub(crate) fn wire(&self) -> &Client {
        &self.wire
    }

    /// Says the first line, which begins with the name, and waits until it has been accepted.
    #[track_caller]
    pub(crate) fn login(&mut self, first_line: &str) {
        self.say_first(first_line);
        self.quiet();
    }

    /// Says the first line, which begins with the name.
    pub(crate) fn say_first(&mut self, first_line: &str) {
        self.say(first_line);
        let name = first_line.split(' ').next().expect("a split has a first part");
        name.clone_into(&mut self.name);
    }

    /// Sends one line with LF in one write.
    pub(crate) fn say(&mut self, line: &str) {
        self.say_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends bytes as they are.
    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.wire.say_bytes(bytes);
    }

    /// Sends bytes as far as the server takes them.
    pub(crate) fn try_say_bytes(&mut self, bytes: &[u8]) -> bool {
        self.wire.try_say_bytes(bytes)
    }

    /// The next line, without its end.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> String {
        self.next().expect("the stream ended where a line was expected")
    }

    /// The next lines, that many.
    #[track_caller]
    pub(crate) fn hear_all(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.hear()).collect()
    }

    /// All lines up to the end of the stream.
    #[track_caller]
    pub(crate) fn hear_to_the_end(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The next line is an error; its text.
    #[track_caller]
    pub(crate) fn hear_error(&mut self) -> String {
        let line = self.hear();
        match line.strip_prefix("error: ") {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => panic!("not an error: {line:?}"),
        }
    }

    /// The next line is the goodbye with that reason; its text.
    #[track_caller]
    pub(crate) fn expect_goodbye(&mut self, reason: &str) -> String {
        let error = self.hear_error();
        let text = error.strip_prefix(reason).and_then(|rest| rest.strip_prefix(": "));
        text.unwrap_or_else(|| panic!("not the goodbye {reason}: {error:?}")).to_owned()
    }

    /// One error comes next, and then the end.
    #[track_caller]
    pub(crate) fn expect_refused(&mut self) -> String {
        let text = self.hear_error();
        self.expect_end();
        text
    }

    /// Nothing but the end of the stream comes next, and not as a reset.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        if let Some(line) = self.next() {
            panic!("expected the end, came {line:?}");
        }
    }

    /// Proves that nothing else was under way to this client: what it says to itself comes next.
    #[track_caller]
    pub(crate) fn quiet(&mut self) {
        self.markers += 1;
        let marker = format!("{}: marker {}", self.name, self.markers);
        self.say(&marker);
        assert_eq!(self.hear(), format!("from {marker}"));
    }

    /// Proves that nothing arrives, not even an end, before `holds`.
    #[track_caller]
    pub(crate) fn hear_nothing_until(&mut self, what: &str, holds: impl FnMut() -> bool) {
        self.wire.hear_nothing_until(what, holds);
    }

    /// Ends its side, and still listens.
    pub(crate) fn end_input(&mut self) {
        self.wire.end_input();
    }

    /// Goes away with an RST.
    pub(crate) fn reset(self) {
        self.wire.reset();
    }

    /// The next line, or none at the end of the stream.
    #[track_caller]
    fn next(&mut self) -> Option<String> {
        let mut bytes = self.wire.next_bytes(DEADLINE)?;
        assert_eq!(self.wire.last_terminator(), b'\n', "a NUL in a line: {bytes:?}");
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        let line = String::from_utf8(bytes).expect("lines are UTF-8");
        let controls = |char: char| char.is_control() && char != '\t';
        assert!(!line.contains(controls), "a control character in {line:?}");
        assert!(line.starts_with("from ") || line.starts_with("error: "), "neither text nor error: {line:?}");
        Some(line)
    }
}
