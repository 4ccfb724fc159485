//! Drives a session: brings it what happens, and does what it asks for.
//!
//! Runs on the session's thread. Everything else comes to it by channels, and it waits for all of them at once; it
//! decides nothing.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never, select};

use super::ChatError;
use super::link::{self, News, What};
use super::session::{Act, Session, Show};

/// Objects from the server that wait for the session; behind them its thread stops reading.
const NEWS_MAX: usize = 256;

/// How often a view that is behind is asked whether it has caught up.
const CATCH_UP: Duration = Duration::from_millis(20);

/// One piece of input.
#[derive(Debug)]
pub(super) enum Input {
    /// A line, without its end.
    Line(String),
    /// What came is no line that could be used, and why.
    Unusable(&'static str),
    /// There will be no more.
    End,
    /// It cannot be read.
    Failed(io::Error),
}

/// Where a session shows itself.
pub(super) trait View {
    /// Shows something; false when nobody looks any more.
    fn show(&mut self, show: &Show) -> io::Result<bool>;

    /// True exactly when it is not behind with showing.
    fn has_room(&self) -> bool {
        true
    }

    /// Asks for the next line of input, with that in front of it.
    fn ask(&mut self, _prompt: String) {}
}

/// What a driver works with.
pub(super) struct Around<'a, V> {
    /// `host:port`.
    pub(super) server: &'a str,
    pub(super) view: &'a mut V,
    pub(super) input: Receiver<Input>,
    /// Says that the process was told to end.
    pub(super) stop: Receiver<()>,
}

/// Drives the session to its end.
pub(super) fn drive<V: View>(mut session: Session, around: Around<'_, V>) -> Result<(), ChatError> {
    let Around { server, view, input, stop } = around;
    let started = Instant::now();
    let now_ms = || started.elapsed().as_millis() as u64;
    let (tell, news) = bounded(NEWS_MAX);
    let (no_input, no_news) = (never(), never());
    let mut stream: Option<TcpStream> = None;
    let mut link = 0;
    let mut asked = false;
    loop {
        for act in session.take_acts() {
            match act {
                Act::Dial => {
                    link += 1;
                    link::open(link, server, tell.clone()).map_err(ChatError::System)?;
                }
                Act::Send(object) => {
                    if let Some(open) = &stream
                        && link::send(open, &object).is_err()
                    {
                        // Half an object may be out, so nothing may follow it. What the server still has to say, a
                        // goodbye perhaps, is read before the connection counts as lost.
                        link::end_side(open);
                    }
                }
                Act::EndSide => stream.iter().for_each(link::end_side),
                Act::HangUp => {
                    stream.take().iter().for_each(link::hang_up);
                    // Whatever the old one still reports is of no interest.
                    link += 1;
                }
                Act::Show(show) => {
                    if !view.show(&show).map_err(ChatError::System)? {
                        return Ok(());
                    }
                }
            }
        }
        if let Some(outcome) = session.take_outcome() {
            return outcome;
        }
        let wants_input = session.wants_input();
        if wants_input && !asked {
            view.ask(session.prompt());
            asked = true;
        }
        let until_due =
            session.deadline_ms().map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms())));
        let has_room = view.has_room();
        let wait = if has_room { until_due.unwrap_or(Duration::MAX) } else { CATCH_UP };
        select! {
            recv(if wants_input { &input } else { &no_input }) -> came => {
                asked = false;
                match came {
                    Ok(Input::Line(line)) => session.typed(&line, now_ms()),
                    Ok(Input::Unusable(why)) => session.trouble(why.into()),
                    Ok(Input::Failed(error)) => return Err(ChatError::Input(error)),
                    Ok(Input::End) | Err(_) => session.input_ended(now_ms()),
                }
            }
            recv(if has_room { &news } else { &no_news }) -> came => {
                let Ok(News { link: from, what }) = came else { continue };
                if from == link {
                    match what {
                        What::Up(writer) => {
                            stream = Some(writer);
                            session.connected(now_ms());
                        }
                        What::Object(object) => session.heard(&object, now_ms()),
                        What::Down(why) => session.lost(&why, now_ms()),
                    }
                }
            }
            recv(stop) -> _ => session.stop(now_ms()),
            default(wait) => {}
        }
        session.tick(now_ms());
    }
}
