//! Two machines with a cable between them, made of network namespaces.
//!
//! The test runs itself again inside a namespace of its own, the client's machine, and holds a second one for the
//! server. Nothing outside is touched, and both are gone with the processes in them, however those end.

use std::env;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use crate::common::{Home, PASSWORD, Server};

/// Set for the test that runs inside.
const INSIDE: &str = "TEST_RUNS_IN_ITS_OWN_NETWORK";
/// The server's machine.
const SERVER: &str = "10.77.0.1";
/// The client's machine, and a second address of it.
pub(crate) const CLIENTS: [&str; 2] = ["10.77.0.2", "10.77.0.3"];
/// The ends of the cable.
const SERVER_END: &str = "lingersrv";
const CLIENT_END: &str = "lingercli";
/// What a test here needs.
const NEEDS: &str = "this test makes network namespaces: it needs iproute2, util-linux (unshare, nsenter), and root \
                     or unprivileged user namespaces";

/// The two machines, as the test inside sees them.
pub(crate) struct Net {
    /// Holds the server's namespace open; it ends with its standard input.
    holder: Child,
}

/// Runs the body of the test of that name between two machines.
#[track_caller]
pub(crate) fn between_two_machines(test: &str, body: impl FnOnce(&Net)) {
    if env::var_os(INSIDE).is_some() {
        return body(&Net::new());
    }
    let done = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("network::{test}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap_or_else(|error| panic!("{error}: {NEEDS}"));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let hint = if out.contains("running") { "" } else { NEEDS };
    assert!(done.status.success() && out.contains("1 passed"), "inside the namespace: {hint}\n{out}\n{err}");
}

impl Net {
    fn new() -> Net {
        let mut holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: {NEEDS}"));
        // What comes back was echoed from inside: the namespace is there.
        let mut echo = [0];
        holder.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut echo).expect(NEEDS);
        let net = Net { holder };
        let pid = net.holder.id().to_string();
        let cable = ["link", "add", CLIENT_END, "type", "veth", "peer", "name", SERVER_END, "netns", &pid];
        ip(&cable);
        for address in CLIENTS {
            ip(&["address", "add", &format!("{address}/24"), "dev", CLIENT_END]);
        }
        ip(&["link", "set", CLIENT_END, "up"]);
        net.on_server(&["ip", "address", "add", &format!("{SERVER}/24"), "dev", SERVER_END]);
        net.on_server(&["ip", "link", "set", SERVER_END, "up"]);
        net.on_server(&["ip", "link", "set", "lo", "up"]);
        net
    }

    /// A server on its machine. Its control socket and its database are at hand as always.
    pub(crate) fn start(&self, flags: &[&str]) -> Server {
        let home = Home::new();
        let mut command = self.at_server();
        command.arg(env!("CARGO_BIN_EXE_linger")).args(["serve", "--data", &home.data_arg()]);
        command.args(["--listen", &format!("{SERVER}:0"), "--argon2", "8,1,1", "--log", "debug"]).args(flags);
        Server::launch(command, &home)
    }

    /// From now on the client's connections come from that address.
    #[expect(clippy::unused_self, reason = "only who has the machines may change them")]
    pub(crate) fn speak_from(&self, address: &str) {
        ip(&["route", "replace", "10.77.0.0/24", "dev", CLIENT_END, "src", address]);
    }

    /// The client's machine gets everything, and nothing of what it says gets out any more.
    pub(crate) fn silence_client(&self) {
        let mac = mac_of_client();
        for address in CLIENTS {
            // The server knows where the machine is, as behind a router: no neighbour is asked for.
            self.on_server(&["ip", "neighbour", "replace", address, "lladdr", &mac, "dev", SERVER_END]);
        }
        run(Command::new("tc").args(["qdisc", "replace", "dev", CLIENT_END, "root", "pfifo", "limit", "0"]));
    }

    /// The client's machine loses its cable.
    #[expect(clippy::unused_self, reason = "only who has the machines may change them")]
    pub(crate) fn pull_the_cable(&self) {
        ip(&["link", "set", CLIENT_END, "down"]);
    }

    /// Runs a command on the server's machine.
    pub(crate) fn on_server(&self, words: &[&str]) {
        run(self.at_server().args(words));
    }

    fn at_server(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id()));
        command
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// The login of a user, with those extensions.
pub(crate) fn login(id: i64, caps: &[&str]) -> serde_json::Value {
    serde_json::json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": caps})
}

/// Changes the client's machine, which is where the test runs.
#[track_caller]
fn ip(words: &[&str]) {
    run(Command::new("ip").args(words));
}

fn mac_of_client() -> String {
    let shown = Command::new("ip").args(["-o", "link", "show", CLIENT_END]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).expect("the cable has an address").to_owned()
}

#[track_caller]
fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: {NEEDS}"));
    assert!(done.status.success(), "{command:?}: {}: {NEEDS}", String::from_utf8_lossy(&done.stderr));
}
