//! Keeps a print from landing in the middle of an input line.
//!
//! Shared by the keyboard's thread, which owns the terminal, the printer's thread and the session's. The line editor
//! prints above its line while it reads, and straight away while it does not. In between, when a line has been accepted
//! and the next one is not drawn yet, both would damage the line; prints wait then.

use std::sync::PoisonError;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use linger_server::sync::{Condvar, Mutex, MutexGuard};

/// How long an accepted line waits for a print that has begun, at most. A print that takes longer is waiting for the
/// editor: it has read the editor's state already and cannot damage the line.
const PRINT: Duration = Duration::from_millis(50);

/// What the keyboard's thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It does not read, and nothing stands on the input line.
    Idle,
    /// It is about to read, or has just read.
    Between,
    /// True exactly from the first drawing of the input line until that line is accepted or given up.
    Reading,
}

#[derive(Debug)]
struct Shared {
    stage: Stage,
    printing: bool,
    closing: bool,
}

/// Keeps prints and the input line apart.
#[derive(Debug)]
pub(super) struct PrintLock {
    shared: Mutex<Shared>,
    changed: Condvar,
}

impl PrintLock {
    pub(super) fn new() -> PrintLock {
        let shared = Shared { stage: Stage::Idle, printing: false, closing: false };
        PrintLock { shared: Mutex::new(shared), changed: Condvar::new() }
    }

    /// Runs `print` as soon as it cannot damage an input line.
    pub(super) fn print(&self, print: impl FnOnce()) {
        let mut shared = self.shared.lock();
        while shared.stage == Stage::Between {
            shared = self.wait(shared);
        }
        if shared.stage == Stage::Idle {
            // Under the lock, so that reading does not begin meanwhile.
            return print();
        }
        shared.printing = true;
        // Without the lock: the editor's hooks take it, and a print may wait for the editor.
        drop(shared);
        print();
        self.shared.lock().printing = false;
        self.changed.notify_all();
    }

    /// The keyboard's thread has stopped reading.
    pub(super) fn idle(&self) {
        self.shared.lock().stage = Stage::Idle;
        self.changed.notify_all();
    }

    /// The keyboard's thread is about to read.
    pub(super) fn begin(&self) {
        self.shared.lock().stage = Stage::Between;
    }

    /// The input line is being drawn, for the first time or again.
    pub(super) fn drawn(&self) {
        let mut shared = self.shared.lock();
        let closing = shared.closing;
        let first = std::mem::replace(&mut shared.stage, Stage::Reading) != Stage::Reading;
        drop(shared);
        if first {
            self.changed.notify_all();
        }
        if closing {
            interrupt();
        }
    }

    /// The input line is accepted.
    pub(super) fn accepted(&self) {
        let mut shared = self.shared.lock();
        shared.stage = Stage::Between;
        while shared.printing {
            let (again, waited) =
                self.changed.wait_timeout(shared, PRINT).unwrap_or_else(PoisonError::into_inner);
            shared = again;
            if waited.timed_out() {
                return;
            }
        }
    }

    /// True exactly when an input line stands on the screen.
    pub(super) fn is_reading(&self) -> bool {
        self.shared.lock().stage == Stage::Reading
    }

    /// Interrupts the editor: now if it reads, otherwise when it draws the next line.
    pub(super) fn close(&self) {
        let mut shared = self.shared.lock();
        shared.closing = true;
        let reading = shared.stage == Stage::Reading;
        drop(shared);
        if reading {
            interrupt();
        }
    }

    fn wait<'a>(&self, shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends SIGINT, on which alone the line editor ends and restores the terminal. While it reads, the editor handles the
/// signal; at other times the program's own handler does.
fn interrupt() {
    // A process that may not signal itself has no other way.
    let _ = kill_process(getpid(), Signal::INT);
}
