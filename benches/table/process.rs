//! The servers: finds them, starts them, reads what they cost from `/proc`, and ends them.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How long a server may take to start.
const START_WITHIN: Duration = Duration::from_secs(10);

/// `--grace` of Linger here.
const GRACE: Duration = Duration::from_secs(1);

/// A server is calm when it needs less CPU time than this share of the time.
const CALM_SHARE: u32 = 50;

/// How long one look at a server's calm takes.
const CALM_LOOK: Duration = Duration::from_millis(500);

/// How long a server may take to calm down.
const CALM_WITHIN: Duration = Duration::from_mins(1);

/// Servers that Linger is compared with: the name in the table, the variable that names the program, the program.
pub(crate) const PEERS: [Peer; 3] = [
    Peer { name: "floor", variable: "EPOLL_FLOOR", program: "epoll_floor" },
    Peer { name: "libevent", variable: "LIBEVENT_RELAY", program: "libevent_relay" },
    Peer { name: "nats", variable: "NATS_SERVER", program: "nats-server" },
];

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) program: &'static str,
}

/// A running server; it ends when dropped.
pub(crate) struct Process {
    child: Child,
    /// Where the protocols listen: JSON, lines. One and the same for peers.
    pub(crate) json: SocketAddr,
    pub(crate) line: SocketAddr,
    /// How long after an end the server still has to do with it.
    grace: Duration,
}

impl Peer {
    /// The program, from its variable or from `PATH`.
    pub(crate) fn find(self) -> Option<PathBuf> {
        let given = env::var_os(self.variable).map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let found =
            || env::split_paths(&path).map(|place| place.join(self.program)).find(|file| file.is_file());
        given.or_else(found)
    }

    /// Starts it on a free port.
    pub(crate) fn start(self, program: &Path, threads: usize) -> Result<Process> {
        // Free for the moment; a peer does not tell which port it took.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let port = address.port().to_string();
        let mut command = Command::new(program);
        match self.name {
            "nats" => command.args(["-a", "127.0.0.1", "-p", &port]).env("GOMAXPROCS", threads.to_string()),
            _ => command.args([port, threads.to_string()]),
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.with_context(|| program.display().to_string())?;
        let process = Process { child, json: address, line: address, grace: Duration::ZERO };
        let since = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(since.elapsed() < START_WITHIN, "{} does not listen", program.display());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(process)
    }
}

/// Linger, as `cargo build` has put it beside the benches' directory.
pub(crate) fn linger() -> Command {
    let bench = env::current_exe().unwrap_or_default();
    Command::new(bench.ancestors().nth(2).unwrap_or(&bench).join("linger"))
}

/// Starts Linger on that directory. Password hashes are cheap: thousands of users register.
pub(crate) fn start_linger(data: &Path, workers: usize) -> Result<Process> {
    let grace = format!("{}s", GRACE.as_secs());
    let mut child = linger()
        .args(["serve", "--listen", "127.0.0.1:0", "--line", "127.0.0.1:0", "--argon2", "8,1,1"])
        .args(["--grace", &grace, "--box-messages", "1000000", "--box-bytes", "1GiB", "--log", "warn"])
        .args(["--workers", &workers.to_string(), "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start linger, which `cargo build` puts beside the benches")?;
    let mut ready = String::new();
    let stdout = child.stdout.take().context("linger has no stdout")?;
    BufReader::new(stdout).read_line(&mut ready)?;
    let address = |key: &str| -> Result<SocketAddr> {
        let (_, rest) = ready.split_once(key).with_context(|| format!("linger did not start: {ready:?}"))?;
        Ok(rest.split([' ', ',']).next().unwrap_or_default().parse()?)
    };
    let (json, line) = (address("json=")?, address("line=")?);
    Ok(Process { child, json, line, grace: GRACE })
}

impl Process {
    /// CPU time of all threads so far. The scheduler counts it in nanoseconds.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id())).context("the server is gone")? {
            // A thread may end between the two looks.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanos += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
        ensure!(nanos > 0, "this kernel does not count CPU time in /proc/PID/task/*/schedstat");
        Ok(Duration::from_nanos(nanos))
    }

    /// Memory in RAM, without the kernel's own for its sockets.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let kib = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
        Ok(kib.context("the kernel tells no Rss")?.trim().parse::<u64>()? * 1024)
    }

    /// Waits until the server has done what was asked of it.
    pub(crate) fn calm(&self) -> Result<()> {
        let since = Instant::now();
        thread::sleep(self.grace);
        loop {
            let cpu = self.cpu()?;
            thread::sleep(CALM_LOOK);
            let spent = self.cpu()?.saturating_sub(cpu);
            if spent < CALM_LOOK / CALM_SHARE {
                return Ok(());
            }
            ensure!(since.elapsed() < CALM_WITHIN, "the server does not calm down");
        }
    }

    /// Has it stop in order, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
