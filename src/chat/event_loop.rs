//! Passes events to a session and carries out its actions.
//!
//! Runs on the session's thread. Input, connection events and the request to stop come over channels; the loop waits for
//! all of them at once. It decides nothing.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never, select};

use super::ChatError;
use super::connection::{self, Event, Report};
use super::session::{Action, Output, Session};

/// Objects from the server that may wait for the session; when there are more, the connection's thread stops reading.
const REPORTS_MAX: usize = 256;

/// How often the loop asks a view that is behind whether it has caught up.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(20);

/// One piece of input.
#[derive(Debug)]
pub(super) enum Input {
    /// A line, without its end.
    Line(String),
    /// A line that cannot be used, and why.
    Unusable(&'static str),
    /// The input has ended.
    End,
    /// The input cannot be read.
    Failed(io::Error),
}

/// Where a session's output goes.
pub(super) trait View {
    /// Shows one output; false when nobody reads them any more.
    fn show(&mut self, output: &Output) -> io::Result<bool>;

    /// True exactly when it can take more output.
    fn has_room(&self) -> bool {
        true
    }

    /// Asks for the next line of input, behind this prompt.
    fn ask(&mut self, _prompt: String) {}
}

/// What the event loop works with.
pub(super) struct Environment<'a, V> {
    /// `host:port`.
    pub(super) server: &'a str,
    pub(super) view: &'a mut V,
    pub(super) input: Receiver<Input>,
    /// Receives a message when the process was told to end.
    pub(super) stop: Receiver<()>,
}

/// Runs the session to its end.
pub(super) fn run<V: View>(mut session: Session, environment: Environment<'_, V>) -> Result<(), ChatError> {
    let Environment { server, view, input, stop } = environment;
    let started = Instant::now();
    let now_ms = || started.elapsed().as_millis() as u64;
    let (tell, reports) = bounded(REPORTS_MAX);
    let (no_input, no_reports) = (never(), never());
    let mut stream: Option<TcpStream> = None;
    let mut connection = 0;
    let mut is_prompted = false;
    loop {
        for action in session.take_actions() {
            match action {
                Action::Connect => {
                    connection += 1;
                    connection::open(connection, server, tell.clone()).map_err(ChatError::System)?;
                }
                Action::Send(object) => {
                    if let Some(open) = &stream
                        && connection::send(open, &object).is_err()
                    {
                        // Part of an object may have been sent, so nothing may follow it. What the server has sent,
                        // perhaps a goodbye, is read before the connection counts as lost.
                        connection::half_close(open);
                    }
                }
                Action::HalfClose => stream.iter().for_each(connection::half_close),
                Action::Disconnect => {
                    stream.take().iter().for_each(connection::disconnect);
                    // Later reports of the old connection are ignored.
                    connection += 1;
                }
                Action::Output(output) => {
                    if !view.show(&output).map_err(ChatError::System)? {
                        return Ok(());
                    }
                }
            }
        }
        if let Some(outcome) = session.take_outcome() {
            return outcome;
        }
        let wants_input = session.wants_input();
        if wants_input && !is_prompted {
            view.ask(session.prompt());
            is_prompted = true;
        }
        let until_due =
            session.deadline_ms().map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms())));
        let has_room = view.has_room();
        let wait = if has_room { until_due.unwrap_or(Duration::MAX) } else { CATCH_UP_INTERVAL };
        select! {
            recv(if wants_input { &input } else { &no_input }) -> received => {
                is_prompted = false;
                match received {
                    Ok(Input::Line(line)) => session.execute(&line, now_ms()),
                    Ok(Input::Unusable(why)) => session.show_error(why.into()),
                    Ok(Input::Failed(error)) => return Err(ChatError::Input(error)),
                    Ok(Input::End) | Err(_) => session.input_ended(now_ms()),
                }
            }
            recv(if has_room { &reports } else { &no_reports }) -> received => {
                let Ok(Report { connection: from, event }) = received else { continue };
                if from == connection {
                    match event {
                        Event::Connected(writer) => {
                            stream = Some(writer);
                            session.connected(now_ms());
                        }
                        Event::Received(object) => session.received(&object, now_ms()),
                        Event::Lost(why) => session.lost(&why, now_ms()),
                    }
                }
            }
            recv(stop) -> _ => session.stop(now_ms()),
            default(wait) => {}
        }
        session.tick(now_ms());
    }
}
