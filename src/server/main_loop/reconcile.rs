//! The reconciler: main compares what it knows with everything that should say the same, a slice at a time, and
//! repairs and counts what differs. In a server without faults, and with nobody else writing its rows, it finds nothing.
//!
//! Owned by main; it runs at the end of a turn, when all is committed and nothing is under way. It never waits, and
//! never reads or writes a socket.
//!
//! | compared | with | where they differ, main |
//! |---|---|---|
//! | slot of the table | the connections that its worker holds | sends a channel without a connection away; has a connection without a name closed |
//! | gate of a channel | main's session there | sends away a session that main does not know; ends one whose channel has gone |
//! | gate of a channel | whether it lingers | makes the departure that was lost; forgets a lingering channel that is free |
//! | lingering channel | its grace, its delivery report | asks for the socket; settles with nothing |
//! | session of a user | main's map of channels | puts the map right |
//! | session of a user | the registry, by user and by name | enters it anew |
//! | registry | main's sessions | takes the entry or the name out |
//! | row of a user with a session | state and epoch | writes them again |
//! | row of a user without one | state | writes `offline` |
//! | session of a user | that there is a row | sends the session away: `internal_error` |
//!
//! Whatever another thread may be in the middle of is compared so that its report comes first: a worker pushes the
//! departures and sockets that it has before its answer, into the same queue. What is left of races (a thread that
//! sleeps between the step and its report) is met by looking twice: only what differs in the same way in two rounds,
//! `SURE_US` apart, is counted and repaired. A user is left out while an end, a login or a message of that user waits.
//!
//! Not compared, and why:
//! - The number of sockets in `/proc/self/fd`. A socket is there before its channel has a name, and on its way back to
//!   main when its worker holds it no more; connections of the admin socket come and go. A busy server has no moment at
//!   which the right number is known, so there would be false alarms; and the look costs a system call for each fd.
//!   Each worker answers for the sockets that it holds instead.
//! - Names in rows: a session keeps the name under which it logged in.
//! - Boxes: another process may empty one.

mod channels;
mod difference;
#[cfg(test)]
mod tests;
mod users;
pub(super) mod walks;

use super::state::MainLoop;
use crate::store::Storage;
use difference::{Difference, SURE_US};

/// From one step to the next, in microseconds.
const STEP_US: u64 = 500_000;
/// Slots that one step asks the workers about.
const SLOTS_MAX: u32 = 512;
/// Rows that one step reads.
const ROWS_MAX: usize = 512;
const _: () = assert!(SURE_US > STEP_US);

/// How long one round takes for so many slots and rows, in microseconds; the workers' answers not counted.
pub const fn round_us(slots: u64, rows: u64) -> u64 {
    let (by_slots, by_rows) = (slots.div_ceil(SLOTS_MAX as u64), rows.div_ceil(ROWS_MAX as u64));
    let steps = if by_slots > by_rows { by_slots } else { by_rows };
    (if steps == 0 { 1 } else { steps }) * STEP_US
}
const _: () = assert!(round_us(20_000, 100_000) <= 100 * 1_000_000);

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Takes the next step, if it is due and all is committed.
    pub(super) fn reconcile(&mut self) {
        let now_us = self.cx.now.mono_us;
        if now_us < self.reconciler.due_us() || self.cx.transaction.is_under_way() {
            return;
        }
        self.reconciler.put_off(now_us + STEP_US);
        if self.cx.transaction.is_in_debt() {
            return;
        }
        self.compare_rows(ROWS_MAX);
        self.ask_holders(SLOTS_MAX);
        self.cx.handles.metrics.reconcile_rounds.add(self.reconciler.take_rounds());
    }

    /// Looks at every row and every channel that lingers, when the server has stopped in order and the workers have ended:
    /// nobody may be left anywhere.
    pub(super) fn compare_all(&mut self) {
        self.reconciler.begin_at_rest();
        while self.compare_rows(ROWS_MAX) {}
        self.compare_seats(0, u32::MAX);
    }

    /// Looks at everything at once while everybody rests; the workers still have to answer.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn look_around(&mut self) {
        self.reconciler.begin_at_rest();
        while self.compare_rows(ROWS_MAX) {}
        self.ask_holders(u32::MAX);
    }

    /// The server is no more known to rest.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn looked_around(&mut self) {
        self.reconciler.end_rest();
    }

    /// Notes that something differs. True when that is sure, and so has to be repaired.
    fn is_sure(&mut self, difference: Difference) -> bool {
        let sure = self.reconciler.confirms(difference, self.cx.now.mono_us);
        if sure {
            self.cx.handles.metrics.reconciled.add(1);
            tracing::warn!("reconciled: {difference}");
        }
        sure
    }
}
