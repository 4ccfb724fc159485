//! When something may be printed, so that it never lands in the middle of an input line.
//!
//! Shared by the keyboard's thread, which owns the terminal, the printer's thread and the session's. The line editor
//! prints above its line while it reads, and straight away while it does not. In between, when a line has been accepted
//! and the next one is not begun, both would be wrong; the gate is shut then.

use std::sync::PoisonError;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use linger_server::sync::{Condvar, Lock, MutexGuard};

/// How long an accepted line waits for a print that is under way, at most. A print that takes longer waits for the
/// editor itself: it has looked at the editor's state already, and cannot tear the line any more.
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
struct Place {
    stage: Stage,
    printing: bool,
    closing: bool,
}

/// Keeps prints and the input line apart.
#[derive(Debug)]
pub(super) struct Gate {
    place: Lock<Place>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn new() -> Gate {
        let place = Place { stage: Stage::Idle, printing: false, closing: false };
        Gate { place: Lock::new(place), changed: Condvar::new() }
    }

    /// Runs `print` as soon as nothing can be torn by it.
    pub(super) fn print(&self, print: impl FnOnce()) {
        let mut place = self.place.lock();
        while place.stage == Stage::Between {
            place = self.wait(place);
        }
        if place.stage == Stage::Idle {
            // Under the lock, so that reading does not begin meanwhile.
            return print();
        }
        place.printing = true;
        // Not under the lock: the editor takes it, and a print may wait for the editor.
        drop(place);
        print();
        self.place.lock().printing = false;
        self.changed.notify_all();
    }

    /// The keyboard's thread does not read until further notice.
    pub(super) fn idle(&self) {
        self.place.lock().stage = Stage::Idle;
        self.changed.notify_all();
    }

    /// The keyboard's thread is about to read.
    pub(super) fn begin(&self) {
        self.place.lock().stage = Stage::Between;
    }

    /// The input line is being drawn, for the first time or again.
    pub(super) fn drawn(&self) {
        let mut place = self.place.lock();
        let closing = place.closing;
        let first = std::mem::replace(&mut place.stage, Stage::Reading) != Stage::Reading;
        drop(place);
        if first {
            self.changed.notify_all();
        }
        if closing {
            interrupt();
        }
    }

    /// The input line is accepted.
    pub(super) fn accepted(&self) {
        let mut place = self.place.lock();
        place.stage = Stage::Between;
        while place.printing {
            let (again, waited) =
                self.changed.wait_timeout(place, PRINT).unwrap_or_else(PoisonError::into_inner);
            place = again;
            if waited.timed_out() {
                return;
            }
        }
    }

    /// True exactly when an input line stands on the screen.
    pub(super) fn is_reading(&self) -> bool {
        self.place.lock().stage == Stage::Reading
    }

    /// Ends the reading of this line, or of the next one as soon as it is drawn.
    pub(super) fn close(&self) {
        let mut place = self.place.lock();
        place.closing = true;
        let reading = place.stage == Stage::Reading;
        drop(place);
        if reading {
            interrupt();
        }
    }

    fn wait<'a>(&self, place: MutexGuard<'a, Place>) -> MutexGuard<'a, Place> {
        self.changed.wait(place).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line editor ends on SIGINT, and only so, with the terminal as it was. It takes the signal while it reads; the
/// handler of the whole program takes it otherwise.
fn interrupt() {
    // Nothing else can be done where a process may not signal itself.
    let _ = kill_process(getpid(), Signal::INT);
}
