//! What the service manager is told: ready, stopping, alive.
//!
//! Used by main; a thread of its own sends, because a service manager that takes nothing makes a sender wait. Without
//! `NOTIFY_SOCKET` in the environment nothing is sent. What it is told never decides anything here: a service manager
//! that does not listen is a warning, no more.

use crossbeam_channel::Sender;
use sd_notify::NotifyState;
use std::io;
use std::time::Duration;

/// Pings in the time after which a service manager takes a silent service for dead.
const PINGS: u64 = 2;
/// States that may wait to be sent. Past it they are dropped: the service manager takes nothing, and so would not
/// hear of them either.
const STATES_MAX: usize = 16;

type States = Vec<NotifyState<'static>>;

/// The service manager, as main talks to it. Times are on the monotonic clock, in microseconds.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    /// How often it wants to hear that main turns; none where it does not ask.
    every_us: Option<u64>,
    ping_us: u64,
    /// True exactly when it knows that the server stops.
    knows_stop: bool,
    /// The thread that sends; none where there is nobody to tell.
    sender: Option<Sender<States>>,
}

impl ServiceManager {
    /// Tells it that everything listens. Who it is and what it wants, the environment says (`NOTIFY_SOCKET`,
    /// `WATCHDOG_USEC`, `WATCHDOG_PID`).
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(crate) fn told_ready() -> io::Result<Self> {
        let mut manager = Self::asking(sd_notify::watchdog_enabled());
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let (sender, states) = crossbeam_channel::bounded::<States>(STATES_MAX);
            let send = move || states.iter().for_each(|states| send(&states));
            std::thread::Builder::new().name("notify".into()).spawn(send)?;
            manager.sender = Some(sender);
        }
        manager.tell(vec![NotifyState::Ready]);
        Ok(manager)
    }

    fn asking(watchdog: Option<Duration>) -> Self {
        let every_us = watchdog.map(|limit| (limit.as_micros() as u64 / PINGS).max(1));
        ServiceManager { every_us, ping_us: 0, knows_stop: false, sender: None }
    }

    /// Never waits.
    fn tell(&self, states: States) {
        if let Some(sender) = &self.sender {
            let _ = sender.try_send(states);
        }
    }

    /// Main has turned. `stop_limit_us` is how long a stop that has begun may still take.
    pub(crate) fn turned(&mut self, now_us: u64, stop_limit_us: Option<u64>) {
        if let (Some(limit_us), false) = (stop_limit_us, self.knows_stop) {
            self.knows_stop = true;
            // A drain may take longer than the service manager waits for a service that stops.
            let limit_us = u32::try_from(limit_us).unwrap_or(u32::MAX);
            self.tell(vec![NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(limit_us)]);
        }
        if let Some(every_us) = self.every_us
            && now_us >= self.ping_us
        {
            self.ping_us = now_us + every_us;
            self.tell(vec![NotifyState::Watchdog]);
        }
    }

    /// How long main may sleep before its next turn is missed, in microseconds.
    pub(crate) fn timeout_us(&self, now_us: u64) -> Option<u64> {
        self.every_us.map(|_| self.ping_us.saturating_sub(now_us))
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_turns_twice_in_the_time_of_the_watchdog() {
        let mut manager = ServiceManager::asking(Some(Duration::from_millis(10)));
        assert_eq!(manager.timeout_us(1_000), Some(0));
        manager.turned(1_000, None);
        assert_eq!(manager.timeout_us(2_000), Some(4_000));
        manager.turned(3_000, None);
        assert_eq!(
            manager.timeout_us(6_000),
            Some(0),
            "a turn before its time does not put the next one off"
        );
    }

    #[test]
    fn without_a_watchdog_main_may_sleep() {
        assert_eq!(ServiceManager::asking(None).timeout_us(1), None);
    }
}
