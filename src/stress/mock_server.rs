//! A server that is just good enough for the scenarios, with one bug at a time, to show that they find it.
//!
//! A thread per connection, one lock, blocking calls: for a few clients in tests only.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Deserializer, Value, json};
use tempfile::TempDir;

mod boxes;

use boxes::Boxes;

/// From going offline to the id being free.
const GRACE: Duration = Duration::from_millis(50);

/// Fds that are no channel's.
const OTHER_FDS: usize = 10;

/// What memory grows by, with that bug.
const GROWTH_BYTES: usize = 64 << 20;

/// How long a bug makes clients wait.
const STALL: Duration = Duration::from_millis(25);

/// The login, departure or chat at which a bug shows that shows once.
const BUG_AT: usize = 33;

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bug {
    None,
    ForgetsOneOffline,
    LeaksAnId,
    LeaksAnFd,
    DepartsTwice,
    TellsOneNothing,
    EndsNoStream,
    KicksABystander,
    WaitsForNothing,
    RefusesALogin,
    FindsADifference,
    LosesAChat,
    SwapsTwoChats,
    StallsAtEachLoss,
    DoublesAChat,
    AnswersNoChat,
    LowersANumber,
    ForgetsWhatItAccepted,
    ForgetsTheMark,
    ForgetsConfirmations,
    MakesFirstLoginsWait,
    StallsAtEachGroupChat,
    GrowsAtAGroupChat,
    LosesACopy,
}

/// A running mock server. It stops accepting when dropped.
pub(super) struct MockServer {
    data: TempDir,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    threads: Vec<JoinHandle<()>>,
}

struct State {
    bug: Bug,
    stopping: bool,
    database: Connection,
    channels: BTreeMap<u64, Channel>,
    opened: u64,
    logins: usize,
    chats: usize,
    departures: usize,
    losses: usize,
    kicks: usize,
    held: Option<(i64, String)>,
    boxes: Boxes,
    /// Memory that is never freed.
    grown: Vec<u8>,
}

struct Channel {
    stream: TcpStream,
    /// True exactly when its client confirms chats.
    confirms: bool,
    user: Option<(i64, String)>,
    offline: Option<Instant>,
}

impl MockServer {
    pub(super) fn start(bug: Bug) -> Self {
        let data = tempfile::tempdir().unwrap();
        let database = Connection::open(data.path().join("linger.db")).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                 CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT UNIQUE, state TEXT DEFAULT 'offline');
                 CREATE TABLE departure (name TEXT, reason TEXT, offline_us INTEGER, delivered INTEGER);
                 CREATE TABLE kept (user INTEGER, body TEXT);
                 CREATE TABLE chatgroup (id INTEGER PRIMARY KEY, name TEXT);
                 CREATE TABLE member (groupid INTEGER, user INTEGER, UNIQUE (groupid, user));",
            )
            .unwrap();
        let state = Arc::new(Mutex::new(State {
            bug,
            stopping: false,
            database,
            channels: BTreeMap::new(),
            opened: 0,
            logins: 0,
            chats: 0,
            departures: 0,
            losses: 0,
            kicks: 0,
            held: None,
            boxes: Boxes::new(bug),
            grown: Vec::new(),
        }));
        let json = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = json.local_addr().unwrap();
        let control = UnixListener::bind(data.path().join("control.sock")).unwrap();
        let (for_json, for_control) = (Arc::clone(&state), Arc::clone(&state));
        let threads = vec![
            thread::spawn(move || {
                for stream in json.incoming().take_while(|_| !lock(&for_json).stopping) {
                    let state = Arc::clone(&for_json);
                    thread::spawn(move || serve(&state, &stream.unwrap()));
                }
            }),
            thread::spawn(move || {
                for stream in control.incoming().take_while(|_| !lock(&for_control).stopping) {
                    let state = Arc::clone(&for_control);
                    thread::spawn(move || answer(&state, stream.unwrap()));
                }
            }),
        ];
        Self { data, address, state, threads }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(super) fn users(&self) -> i64 {
        lock(&self.state).database.query_row("SELECT count(*) FROM user", [], |row| row.get(0)).unwrap()
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        lock(&self.state).stopping = true;
        let _ = TcpStream::connect(self.address);
        let _ = UnixStream::connect(self.data.path().join("control.sock"));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

fn send_line(mut stream: &TcpStream, line: &str) {
    let _ = stream.write_all(format!("{line}\n").as_bytes());
}

/// A client's connection, until its end.
fn serve(state: &Mutex<State>, stream: &TcpStream) {
    let number = {
        let mut state = lock(state);
        state.opened += 1;
        let (number, stream) = (state.opened, stream.try_clone().unwrap());
        state.channels.insert(number, Channel { stream, confirms: false, user: None, offline: None });
        number
    };
    for request in Deserializer::from_reader(BufReader::new(stream)).into_iter::<Value>() {
        let Ok(request) = request else { break };
        lock(state).request(number, stream, &request);
    }
    lock(state).depart(number, "peer_closed");
    let _ = stream.shutdown(Shutdown::Write);
}

/// One request of the control socket.
fn answer(state: &Mutex<State>, mut stream: UnixStream) {
    let mut line = String::new();
    let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
    let Ok(request) = serde_json::from_str::<Value>(&line) else { return };
    let mut state = lock(state);
    let answer = match request["cmd"].as_str() {
        Some("stats") => json!({
            "ok": true,
            "fds": state.fds(),
            "grace_ms": GRACE.as_millis() as u64,
            "reconciled": state.reconciled(),
            "closed": state.channels.len() - state.list(false).len(),
        }),
        Some("who") => json!({"ok": true, "users": state.list(true)}),
        Some("channels") => json!({"ok": true, "channels": state.list(false)}),
        Some("kick") => state.kick(&request),
        _ => json!({"ok": false, "error": "unknown"}),
    };
    drop(state);
    let _ = stream.write_all(format!("{answer}\n").as_bytes());
}

impl State {
    fn request(&mut self, number: u64, stream: &TcpStream, request: &Value) {
        if self.channels[&number].offline.is_some() {
            return;
        }
        let name = request["name"].as_str().unwrap_or_default();
        match request["msgid"].as_i64() {
            Some(1) => {
                self.logins += 1;
                if self.bug == Bug::MakesFirstLoginsWait && name.contains("-first-") {
                    thread::sleep(STALL);
                }
                let id =
                    self.database.query_row("SELECT id FROM user WHERE name = ?1", [name], |row| row.get(0));
                let Ok(id) = id else { return send_line(stream, r#"{"msgid":2,"errno":1,"errmsg":"no"}"#) };
                // Twice as late: the first login of each is refused, as nobody is registered yet.
                if self.bug == Bug::RefusesALogin && self.logins == 2 * BUG_AT {
                    return send_line(stream, r#"{"msgid":2,"errno":2,"errmsg":"online"}"#);
                }
                if let Some(other) = self.live(id) {
                    let other_stream = self.channels[&other].stream.try_clone().unwrap();
                    send_line(&other_stream, r#"{"msgid":20,"reason":"replaced","errmsg":"again"}"#);
                    let _ = other_stream.shutdown(Shutdown::Write);
                    self.depart(other, "replaced");
                }
                self.database.execute("UPDATE user SET state = 'online' WHERE id = ?1", [id]).unwrap();
                let confirms = request.get("caps").is_some();
                let channel = self.channels.get_mut(&number).unwrap();
                (channel.user, channel.confirms) = (Some((id, name.to_owned())), confirms);
                let kept = if confirms { self.boxes.all(id) } else { Vec::new() };
                let answer = json!({"msgid": 2, "errno": 0, "id": id, "name": name, "offlinemsg": kept});
                send_line(stream, &answer.to_string());
            }
            Some(4) => {
                self.database.execute("INSERT INTO user (name) VALUES (?1)", [name]).unwrap();
                send_line(stream, r#"{"msgid":5,"errno":0,"id":1}"#);
            }
            Some(6) if self.is_chaos(number) => self.chat_with_seq(number, stream, request),
            Some(8..=10) => self.group(number, stream, request),
            Some(24) => {
                let user = self.channels[&number].user.as_ref().unwrap().0;
                self.boxes.confirm(user, request["mid"].as_i64().unwrap());
            }
            Some(6) => {
                self.chat(request["toid"].as_i64().unwrap(), &request.to_string());
                if let Some(seq) = request.get("seq") {
                    send_line(stream, &json!({"msgid": 0, "errno": 0, "seq": seq, "re": 6}).to_string());
                }
            }
            other => panic!("the scenarios do not ask {other:?}"),
        }
    }

    fn chat(&mut self, to: i64, body: &str) {
        self.chats += 1;
        let has_bug = self.chats == BUG_AT;
        match self.bug {
            Bug::LosesAChat if has_bug => return,
            Bug::SwapsTwoChats if has_bug => {
                self.held = Some((to, body.to_owned()));
                return;
            }
            _ => {}
        }
        let Some(receiver) = self.live(to) else {
            self.database.execute("INSERT INTO kept VALUES (?1, ?2)", (to, body)).unwrap();
            return;
        };
        send_line(&self.channels[&receiver].stream, body);
        if let Some((_, held)) = self.held.take_if(|(held_for, _)| *held_for == to) {
            send_line(&self.channels[&receiver].stream, &held);
        }
    }

    /// A group is made, joined or written to; all of its other members are absent.
    fn group(&mut self, number: u64, stream: &TcpStream, request: &Value) {
        let user = self.channels[&number].user.as_ref().unwrap().0;
        let mut group = request["groupid"].as_i64();
        if let Some(name) = request["groupname"].as_str() {
            self.database.execute("INSERT INTO chatgroup (name) VALUES (?1)", [name]).unwrap();
            group = Some(self.database.last_insert_rowid());
        }
        if request["msgid"] == 10 {
            match self.bug {
                Bug::StallsAtEachGroupChat => thread::sleep(STALL),
                Bug::GrowsAtAGroupChat if self.grown.is_empty() => self.grown = vec![1; GROWTH_BYTES],
                _ => {}
            }
            let loses = self.bug == Bug::LosesACopy;
            if loses {
                self.bug = Bug::None;
            }
            let copies = "INSERT INTO kept SELECT user, ?3 FROM member WHERE groupid = ?1 AND user <> ?2
                LIMIT -1 OFFSET ?4";
            self.database.execute(copies, (group, user, request.to_string(), i64::from(loses))).unwrap();
        } else {
            self.database.execute("INSERT OR IGNORE INTO member VALUES (?1, ?2)", (group, user)).unwrap();
        }
        let answer =
            json!({"msgid": 0, "errno": 0, "seq": request["seq"], "re": request["msgid"], "id": group});
        send_line(stream, &answer.to_string());
    }

    /// True exactly when a channel is one of the scenario whose receivers confirm.
    fn is_chaos(&self, number: u64) -> bool {
        self.channels[&number].user.as_ref().is_some_and(|(_, name)| name.contains("-chaos-"))
    }

    fn chat_with_seq(&mut self, number: u64, stream: &TcpStream, request: &Value) {
        let from = self.channels[&number].user.as_ref().unwrap().0;
        let to = request["toid"].as_i64().unwrap();
        if !self.boxes.accept(from, to, request) {
            return;
        }
        send_line(stream, &json!({"msgid": 0, "errno": 0, "seq": request["seq"], "re": 6}).to_string());
        let receiver = self.live(to).map(|receiver| &self.channels[&receiver]);
        if let Some(receiver) = receiver.filter(|receiver| receiver.confirms) {
            self.boxes.unsent(to).iter().for_each(|chat| send_line(&receiver.stream, chat));
        }
    }

    fn depart(&mut self, number: u64, reason: &str) {
        let bug = self.bug;
        let channel = self.channels.get_mut(&number).unwrap();
        if channel.offline.is_some() {
            return;
        }
        channel.offline = Some(Instant::now());
        let Some((id, name)) = channel.user.clone() else { return };
        self.departures += 1;
        let is_first = self.departures == 1;
        if reason != "kicked" {
            self.losses += 1;
            match bug {
                Bug::ForgetsOneOffline if self.losses == 1 => return,
                Bug::StallsAtEachLoss => thread::sleep(STALL),
                _ => {}
            }
        }
        let rows = if is_first && bug == Bug::DepartsTwice { 2 } else { 1 };
        for _ in 0..rows {
            self.database.execute("INSERT INTO departure VALUES (?1, ?2, 1, 0)", (&name, reason)).unwrap();
        }
        if self.live(id).is_none() {
            self.database.execute("UPDATE user SET state = 'offline' WHERE id = ?1", [id]).unwrap();
        }
    }

    fn kick(&mut self, request: &Value) -> Value {
        let mut kicked = Vec::new();
        for target in request["targets"].as_array().unwrap() {
            let id: i64 = target.as_str().unwrap().parse().unwrap();
            let Some(number) = self.live(id) else { continue };
            self.kicks += 1;
            let is_first = self.kicks == 1;
            if !(is_first && self.bug == Bug::TellsOneNothing) {
                let goodbye = json!({"msgid": 20, "reason": "kicked", "errmsg": request["reason"]});
                send_line(&self.channels[&number].stream, &goodbye.to_string());
            }
            if self.bug != Bug::EndsNoStream {
                let _ = self.channels[&number].stream.shutdown(Shutdown::Write);
            }
            if self.bug != Bug::WaitsForNothing {
                self.depart(number, "kicked");
            }
            if is_first && self.bug == Bug::KicksABystander {
                let is_bystander =
                    |channel: &&Channel| channel.user.as_ref().is_some_and(|(_, name)| name.ends_with("-20"));
                let bystander = self.channels.values().find(is_bystander).unwrap();
                let _ = bystander.stream.shutdown(Shutdown::Both);
            }
            kicked.push(json!({"channel": format!("{number}.1"), "user": id, "told_us": 1, "offline_us": 2}));
        }
        json!({"ok": true, "kicked": kicked})
    }

    fn live(&self, id: i64) -> Option<u64> {
        let is_his = |channel: &Channel| channel.user.as_ref().is_some_and(|(user, _)| *user == id);
        let mut live = self.channels.iter().filter(|(_, channel)| channel.offline.is_none());
        live.find(|(_, channel)| is_his(channel)).map(|(number, _)| *number)
    }

    /// The channels whose grace is not over; only those with a session where `live` is asked for.
    fn list(&self, live: bool) -> Vec<Value> {
        let leaked = (self.bug == Bug::LeaksAnId).then_some(&1);
        let is_listed = |(number, channel): &(&u64, &Channel)| match channel.offline {
            None => !live || channel.user.is_some(),
            Some(at) => !live && (at.elapsed() < GRACE || Some(*number) == leaked),
        };
        self.channels
            .iter()
            .filter(is_listed)
            .map(|(number, channel)| {
                let name = channel.user.as_ref().map(|(_, name)| name);
                json!({"channel": format!("{number}.1"), "name": name})
            })
            .collect()
    }

    /// Something was found before the scenario began.
    fn reconciled(&self) -> usize {
        1 + usize::from(self.bug == Bug::FindsADifference && self.departures > 0)
    }

    fn fds(&self) -> usize {
        let leaked = usize::from(self.bug == Bug::LeaksAnFd && self.departures > 0);
        OTHER_FDS + leaked + self.list(false).len()
    }
}
