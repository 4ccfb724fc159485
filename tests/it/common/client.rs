//! A chat client that believes nothing: every answer is waited for with a deadline, and a reset is told
//! from an end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::{DEADLINE, PASSWORD, Server};

/// The receive buffer of [`Client::with_small_window`], in bytes, as asked of the kernel.
const SMALL_WINDOW_BYTES: usize = 4096;

/// How long one look at a silent socket takes.
const GLANCE: Duration = Duration::from_millis(5);

/// One connection to a server.
pub(crate) struct Client {
    stream: TcpStream,
    heard: Vec<u8>,
    sent_bytes: u64,
    terminator: u8,
    last_terminator: Option<u8>,
    id: Option<i64>,
    markers: u32,
}

/// What one read brought.
enum Came {
    Bytes,
    End,
    Nothing,
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Client {
        Client::to(server.addr)
    }

    /// A connection to that address.
    pub(crate) fn to(addr: SocketAddr) -> Client {
        Client::over(TcpStream::connect_timeout(&addr, DEADLINE).unwrap())
    }

    /// A connection whose kernel takes only a little, so that a client that does not read is felt soon.
    pub(crate) fn with_small_window(server: &Server) -> Client {
        Client::with_small_window_to(server.addr)
    }

    /// [`Client::with_small_window`] to that address.
    pub(crate) fn with_small_window_to(addr: SocketAddr) -> Client {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(SMALL_WINDOW_BYTES).unwrap();
        socket.connect_timeout(&addr.into(), DEADLINE).unwrap();
        Client::over(socket.into())
    }

    fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Client {
            stream,
            heard: Vec::new(),
            sent_bytes: 0,
            terminator: b'\n',
            last_terminator: None,
            id: None,
            markers: 0,
        }
    }

    /// From now on ends what it says with NUL, as the old clients do.
    pub(crate) fn speak_nul(&mut self) {
        self.terminator = 0;
    }

    /// The byte after the object heard last.
    pub(crate) fn last_terminator(&self) -> u8 {
        self.last_terminator.expect("something was heard")
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// The server's end of the connection.
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    /// How many bytes it has sent, without those of [`Client::try_say_bytes`].
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// The user logged in here by [`Client::login`].
    pub(crate) fn id(&self) -> i64 {
        self.id.expect("somebody is logged in")
    }

    /// Sends one object and the terminator in one write.
    pub(crate) fn say(&mut self, object: &Value) {
        let mut bytes = object.to_string().into_bytes();
        bytes.push(self.terminator);
        self.say_bytes(&bytes);
    }

    /// Sends bytes as they are.
    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.sent_bytes += bytes.len() as u64;
    }

    /// Sends bytes as far as the server takes them; it may end the connection meanwhile.
    pub(crate) fn try_say_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next object.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> Value {
        self.hear_within(DEADLINE)
    }

    /// The next object, with a deadline of its own.
    #[track_caller]
    pub(crate) fn hear_within(&mut self, deadline: Duration) -> Value {
        self.next(deadline).expect("the stream ended where an object was expected")
    }

    /// The next object as it came, for one that is too odd to parse here.
    #[track_caller]
    pub(crate) fn hear_bytes(&mut self) -> Vec<u8> {
        self.next_bytes(DEADLINE).expect("the stream ended where an object was expected")
    }

    /// Says, then hears.
    #[track_caller]
    pub(crate) fn ask(&mut self, object: &Value) -> Value {
        self.say(object);
        self.hear()
    }

    /// The next object that `wanted` accepts; the others before it are put aside in order.
    #[track_caller]
    pub(crate) fn hear_until(&mut self, wanted: impl Fn(&Value) -> bool) -> (Vec<Value>, Value) {
        let mut before = Vec::new();
        loop {
            let object = self.hear();
            if wanted(&object) {
                return (before, object);
            }
            before.push(object);
        }
    }

    /// All objects up to the end of the stream.
    #[track_caller]
    pub(crate) fn hear_to_the_end(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next(DEADLINE)).collect()
    }

    /// Registers that name with [`PASSWORD`]; the new user's id.
    #[track_caller]
    pub(crate) fn register(&mut self, name: &str) -> i64 {
        let answer = self.ask(&json!({"msgid": 4, "name": name, "password": PASSWORD}));
        assert_eq!(
            (&answer["msgid"], &answer["errno"]),
            (&json!(5), &json!(0)),
            "register {name:?}: {answer}"
        );
        answer["id"].as_i64().expect("the new user's id")
    }

    /// Logs in with [`PASSWORD`]; the answer, which must be a success.
    #[track_caller]
    pub(crate) fn login(&mut self, id: i64) -> Value {
        self.login_by(&json!({"msgid": 1, "id": id, "password": PASSWORD}))
    }

    /// Logs in by name with [`PASSWORD`]; the answer, which must be a success.
    #[track_caller]
    pub(crate) fn login_as(&mut self, name: &str) -> Value {
        self.login_by(&json!({"msgid": 1, "name": name, "password": PASSWORD}))
    }

    fn login_by(&mut self, request: &Value) -> Value {
        let answer = self.ask(request);
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(0)), "{request}: {answer}");
        self.id = answer["id"].as_i64();
        answer
    }

    /// Says a chat without waiting for anything.
    pub(crate) fn chat(&mut self, to: i64, text: &str) {
        self.say(&json!({"msgid": 6, "toid": to, "msg": text}));
    }

    /// Says a chat that carries a number, and asks for an answer to it.
    pub(crate) fn chat_numbered(&mut self, to: i64, n: u64, text: &str) {
        self.say(&json!({"msgid": 6, "toid": to, "msg": text, "n": n, "seq": n}));
    }

    /// Logs in and collects messages, in the order they came, until there are `count`.
    #[track_caller]
    pub(crate) fn login_and_collect(&mut self, id: i64, count: usize) -> Vec<Value> {
        let answer = self.login(id);
        let mut messages = unpack(&answer, "offlinemsg");
        while messages.len() < count {
            messages.push(self.hear());
        }
        messages
    }

    /// Proves that nothing else was under way to this client: what it says to itself comes next.
    #[track_caller]
    pub(crate) fn quiet(&mut self) {
        self.markers += 1;
        let (id, text) = (self.id(), format!("marker {}", self.markers));
        self.chat(id, &text);
        let heard = self.hear();
        assert!(heard["msg"] == text.as_str() && heard["id"] == id, "unexpected: {heard}");
    }

    /// Proves that nothing arrives, not even an end, before `holds`.
    #[track_caller]
    pub(crate) fn hear_nothing_until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !holds() {
            assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
            self.glance();
        }
        self.glance();
    }

    fn glance(&mut self) {
        let came = self.receive(GLANCE);
        assert!(matches!(came, Came::Nothing), "before its time: {:?}", String::from_utf8_lossy(&self.heard));
    }

    /// True when that text is in what has come and was not heard yet.
    pub(crate) fn has_before_it(&mut self, text: &str) -> bool {
        self.receive(GLANCE);
        String::from_utf8_lossy(&self.heard).contains(text)
    }

    /// The next object is the goodbye with that reason.
    #[track_caller]
    pub(crate) fn expect_goodbye(&mut self, reason: &str) -> Value {
        let goodbye = self.hear();
        assert_eq!((&goodbye["msgid"], &goodbye["reason"]), (&json!(20), &json!(reason)), "{goodbye}");
        assert!(goodbye["errmsg"].is_string(), "a goodbye without errmsg: {goodbye}");
        goodbye
    }

    /// Nothing but the end of the stream comes next, and not as a reset.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        if let Some(object) = self.next(DEADLINE) {
            panic!("expected the end, came {object}");
        }
    }

    /// Ends its side, and still listens.
    pub(crate) fn end_input(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Goes away with an RST.
    pub(crate) fn reset(self) {
        let socket = Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The next object, or none at the end of the stream.
    #[track_caller]
    fn next(&mut self, deadline: Duration) -> Option<Value> {
        let bytes = self.next_bytes(deadline)?;
        let object = serde_json::from_slice(&bytes);
        Some(object.unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&bytes))))
    }

    /// What comes before the next LF or NUL, or none at the end of the stream.
    #[track_caller]
    pub(super) fn next_bytes(&mut self, deadline: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + deadline;
        let mut searched = 0;
        loop {
            let found = self.heard[searched..].iter().position(|&byte| byte == 0 || byte == b'\n');
            if let Some(at) = found {
                let rest = self.heard.split_off(searched + at + 1);
                let mut bytes = std::mem::replace(&mut self.heard, rest);
                self.last_terminator = bytes.pop();
                return Some(bytes);
            }
            searched = self.heard.len();
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing heard within {deadline:?}; so far {:?}", self.heard);
            if matches!(self.receive(left), Came::End) {
                assert!(self.heard.is_empty(), "ended inside an object: {:?}", self.heard);
                return None;
            }
        }
    }

    fn receive(&mut self, wait: Duration) -> Came {
        self.stream.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Came::End,
            Ok(count) => {
                self.heard.extend_from_slice(&bytes[..count]);
                Came::Bytes
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Came::Nothing
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Came::Nothing,
            Err(error) => panic!("{error}; heard before it: {:?}", String::from_utf8_lossy(&self.heard)),
        }
    }
}

/// An array of JSON strings in a login answer, each as the object that it holds; empty where it is missing.
#[track_caller]
pub(crate) fn unpack(answer: &Value, key: &str) -> Vec<Value> {
    let Some(strings) = answer.get(key) else { return Vec::new() };
    let strings = strings.as_array().unwrap_or_else(|| panic!("{key} is not an array: {answer}"));
    assert!(!strings.is_empty(), "an empty {key} is left out: {answer}");
    strings
        .iter()
        .map(|string| {
            let text = string.as_str().unwrap_or_else(|| panic!("not a string in {key}: {string}"));
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
        })
        .collect()
}

/// The extra field `n` of each message.
#[track_caller]
pub(crate) fn numbers(messages: &[Value]) -> Vec<u64> {
    messages
        .iter()
        .map(|message| message["n"].as_u64().unwrap_or_else(|| panic!("no n: {message}")))
        .collect()
}
