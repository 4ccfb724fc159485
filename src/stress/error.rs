//! Why stress could not give a verdict, and why a verdict is bad. Both carry their numbers.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why a scenario could not be carried through. The cause, where there is one, is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum StressError {
    /// The control socket cannot be reached.
    #[error("{}: the control socket does not answer (is the server running, and is --data its directory?)", path.display())]
    Control {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The control socket answered something that cannot be used.
    #[error("the control socket answered {cmd:?} with: {answer}")]
    Answer {
        /// What was asked.
        cmd: String,
        /// What came back, or what is wrong with it.
        answer: String,
    },
    /// The database cannot be read.
    #[error("{}: cannot read the database", path.display())]
    Database {
        /// The database's path.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A client could not be brought online.
    #[error("{name} could not log in to {target}: {why}")]
    Login {
        /// The user's name.
        name: String,
        /// The server.
        target: SocketAddr,
        /// What happened instead.
        why: String,
    },
    /// Nothing moved for too long.
    #[error("{0} of {1} clients are online, and for {seconds} s no other came", seconds = .2.as_secs())]
    Stuck(usize, usize, Duration),
    /// More clients than this process may have fds.
    #[error("{clients} clients need more file descriptors than the limit of {limit} (raise it: ulimit -n)")]
    Fds {
        /// What was asked for.
        clients: usize,
        /// The hard limit.
        limit: u64,
    },
    /// This process's own sockets failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The server that the scenario runs itself.
    #[error("the server of this run: {0}")]
    Server(String),
    /// A receiver in a process of its own.
    #[error("a receiver's process: {0}")]
    Process(String),
    /// Stdout is gone or full.
    #[error("cannot write the report")]
    Report(#[source] io::Error),
}

impl StressError {
    /// For `map_err`.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// One thing that the server did wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Logged in, but not shown so.
    #[error(
        "{clients} are logged in, but `who` shows {who}, `channels` {channels} and the database {database}"
    )]
    NotOnline {
        /// Clients that have a session.
        clients: usize,
        /// Of them in `who`.
        who: usize,
        /// Of them in `channels`.
        channels: usize,
        /// Of them online in the database.
        database: usize,
    },
    /// Gone, but `who` still shows them.
    #[error("`who` still shows {count} {after_ms} ms after all had left")]
    StillInWho {
        /// How many.
        count: usize,
        /// Waited, in milliseconds.
        after_ms: u64,
    },
    /// Gone, but still online in the database.
    #[error("the database still says online for {count} {after_ms} ms after all had left")]
    StillOnline {
        /// How many.
        count: usize,
        /// Waited, in milliseconds.
        after_ms: u64,
    },
    /// A kick with `--wait` returned before the user was offline.
    #[error("{0} were online in the database after their kick with --wait had returned")]
    OnlineAfterWait(usize),
    /// Channel ids that were not freed after the grace.
    #[error("{count} channel ids leaked, such as {example}")]
    IdsLeaked {
        /// How many.
        count: usize,
        /// One of them.
        example: String,
    },
    /// Fds that were not closed after the grace.
    #[error("{0} fds leaked")]
    FdsLeaked(u64),
    /// Sessions and their ends in the history differ.
    #[error("{sessions} sessions ended, but the history has {departures} departures")]
    Departures {
        /// Sessions that ended.
        sessions: u64,
        /// Rows of `departure`.
        departures: u64,
    },
    /// The server's reconciler has found something.
    #[error("the server's own comparison found {0} differences (its log says which)")]
    Differences(u64),
    /// Kicked without a goodbye.
    #[error("{0} were told nothing")]
    ToldNothing(usize),
    /// Kicked with another goodbye than was asked for.
    #[error("{count} were told something else, such as {example:?}")]
    ToldElse {
        /// How many.
        count: usize,
        /// One of the goodbyes.
        example: String,
    },
    /// The goodbye or the end of the stream came late.
    #[error("{count} saw their goodbye or the end of the stream later than {within_ms} ms")]
    ToldLate {
        /// How many.
        count: usize,
        /// The allowance, in milliseconds.
        within_ms: u64,
    },
    /// The stream was not ended by the server.
    #[error("{0} never saw the end of the stream")]
    NoEnd(usize),
    /// The kick's answer does not list them.
    #[error("the kicks' answers miss {0}")]
    NotKicked(usize),
    /// Clients that nobody kicked lost their connection.
    #[error("{0} bystanders, whom nobody kicked, were touched")]
    Bystanders(usize),
    /// Logins that did not succeed.
    #[error("{count} logins refused, such as: {example}")]
    Refused {
        /// How many.
        count: u64,
        /// What one of them was told.
        example: String,
    },
    /// Lanes that never got an answer.
    #[error("{0} logins were never answered")]
    NoAnswer(usize),
    /// Chats that did not arrive.
    #[error("{0} chats lost")]
    Lost(u64),
    /// Chats that came out of their order, or twice.
    #[error("{0} chats out of order or twice")]
    Reordered(u64),
    /// Chats with `seq` that were never answered.
    #[error("{0} chats with seq were never answered")]
    ChatsUnanswered(u64),
    /// Chats answered by an error.
    #[error("{count} errors, such as: {example}")]
    Errors {
        /// How many.
        count: u64,
        /// One of them.
        example: String,
    },
    /// Chats that were answered and are not in the database.
    #[error("{answered} chats were answered, but the boxes have {kept} more")]
    NotKept {
        /// Answers.
        answered: u64,
        /// Rows that have come.
        kept: u64,
    },
    /// Requests without an answer.
    #[error("{0} chats were never answered")]
    Unanswered(u64),
    /// Live clients waited too long for their chats.
    #[error("{what}: 99 of 100 within {} ms, and the bound is {} ms", *.p99_us as f64 / 1e3, *.bound_us as f64 / 1e3)]
    Slow {
        /// Which chats.
        what: String,
        /// What 99 of 100 stayed within, in microseconds.
        p99_us: u64,
        /// What they had to stay within, in microseconds.
        bound_us: u64,
    },
    /// The server's memory grew too much.
    #[error("{what}: memory grew by {} MiB, and the bound is {} MiB", .grown >> 20, .bound >> 20)]
    Grew {
        /// During which flood.
        what: &'static str,
        /// From before to the peak, in bytes.
        grown: u64,
        /// What it might grow by, in bytes.
        bound: u64,
    },
    /// The server did not end in order.
    #[error("no end in order: {0}")]
    NoStop(String),
    /// The pipe that nobody reads was not filled, so nothing was shown.
    #[error("only {0} bytes waited in the pipe that nobody reads")]
    PipeNotFull(u64),
    /// Chats with a violation, found by the checker of `chaos`.
    #[error("{count} chats {violation} (seed {seed}), such as: {example}")]
    Chats {
        /// How many.
        count: usize,
        /// What they did.
        violation: &'static str,
        /// The seed of the run.
        seed: u64,
        /// The first of them.
        example: String,
    },
    /// The server ended connections with a reason that nobody gave it.
    #[error("{count} connections ended for no reason, such as: {example}")]
    Unprovoked {
        /// How many.
        count: u64,
        /// One of them.
        example: String,
    },
    /// The faults had stopped, and still some client did not come back or some chat did not arrive.
    #[error("not everybody came to rest after the last blow")]
    NotQuiet,
    /// Nothing was done, so nothing was shown.
    #[error("nothing was done in the time given")]
    Nothing,
}
