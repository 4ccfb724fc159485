//! Input and output for people: messages come in above an input line that stays whole.
//!
//! Three threads share it. The keyboard belongs to the first one, which owns the terminal; the screen to the session's;
//! a third prints, because the line editor may keep a print waiting. What the editor draws and reads is its own business.

use std::borrow::Cow;
use std::io;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, ExternalPrinter, Helper};

use super::drive::{Input, View};
use super::gate::Gate;
use super::session::Show;
use super::view;
use linger_server::sync::Arc;

/// Lines that wait to be printed; behind them the session reads no more from the server.
const PRINTS_MAX: usize = 1024;

/// How long a session may keep the next prompt back before the screen is free for prints.
const PROMPT: Duration = Duration::from_millis(200);

/// How long prints may take at the end.
const LAST_PRINTS: Duration = Duration::from_secs(1);

/// What is printed behind the last message. The editor takes one print at a time: when it has taken this one, the
/// last message is out. This one itself may be lost.
const LAST: &str = "* closing\n";

/// The session's side.
pub(super) struct Screen {
    prints: Option<Sender<String>>,
    prompts: Option<Sender<String>>,
    /// Is closed when the printer has ended.
    printer: Receiver<()>,
    gate: Arc<Gate>,
}

/// The side of the thread that owns the terminal.
pub(super) struct Keyboard {
    editor: Editor<Hooks, MemHistory>,
    prompts: Receiver<String>,
    input: Sender<Input>,
    gate: Arc<Gate>,
}

/// Opens the terminal; fails where it cannot do what an editor needs.
pub(super) fn open() -> Result<(Screen, Keyboard, Receiver<Input>), ReadlineError> {
    // Pasted lines are lines like others.
    let config = Config::builder().bracketed_paste(false).build();
    let history = MemHistory::with_config(&config);
    let mut editor = Editor::with_history(config, history)?;
    let printer = editor.create_external_printer()?;
    let gate = Arc::new(Gate::new());
    editor.set_helper(Some(Hooks { gate: Arc::clone(&gate) }));
    let (prints, to_print) = unbounded();
    let (prompts, to_ask) = unbounded();
    let (input, typed) = unbounded();
    let printer = start_printer(printer, to_print, Arc::clone(&gate))?;
    let screen = Screen { prints: Some(prints), prompts: Some(prompts), printer, gate: Arc::clone(&gate) };
    Ok((screen, Keyboard { editor, prompts: to_ask, input, gate }, typed))
}

impl View for Screen {
    fn show(&mut self, show: &Show) -> io::Result<bool> {
        let line = view::for_people(show) + "\n";
        Ok(self.prints.as_ref().is_some_and(|prints| prints.send(line).is_ok()))
    }

    fn has_room(&self) -> bool {
        self.prints.as_ref().is_some_and(|prints| prints.len() < PRINTS_MAX)
    }

    fn ask(&mut self, prompt: String) {
        // The keyboard is gone only at the end.
        let _ = self.prompts.iter().try_for_each(|prompts| prompts.send(view_of_prompt(&prompt)));
    }
}

impl Drop for Screen {
    /// Lets what is to be printed be printed, then lets the keyboard go.
    fn drop(&mut self) {
        self.prompts = None;
        self.prints = None;
        // Nothing is ever sent: this waits for the printer's end.
        let _ = self.printer.recv_timeout(LAST_PRINTS);
        self.gate.close();
    }
}

impl Keyboard {
    /// Reads a line for each prompt, until there are no more prompts.
    pub(super) fn read(mut self) {
        while let Some(prompt) = self.next_prompt() {
            self.gate.begin();
            let input = match self.editor.readline(&prompt) {
                Ok(line) => {
                    // A history that does not take a line is no reason not to say it.
                    let _ = self.editor.add_history_entry(&line);
                    Input::Line(line)
                }
                Err(error) => {
                    self.gate.idle();
                    match error {
                        ReadlineError::Eof | ReadlineError::Interrupted => Input::End,
                        ReadlineError::Io(error) => Input::Failed(error),
                        other => Input::Failed(io::Error::other(other)),
                    }
                }
            };
            if self.input.send(input).is_err() {
                break;
            }
        }
        self.gate.idle();
    }

    fn next_prompt(&self) -> Option<String> {
        match self.prompts.recv_timeout(PROMPT) {
            Err(RecvTimeoutError::Timeout) => {
                self.gate.idle();
                self.prompts.recv().ok()
            }
            prompt => prompt.ok(),
        }
    }
}

fn start_printer(
    mut printer: impl ExternalPrinter + Send + 'static,
    prints: Receiver<String>,
    gate: Arc<Gate>,
) -> io::Result<Receiver<()>> {
    let (running, ended) = bounded(0);
    let run = move || {
        let _running: Sender<()> = running;
        let mut print = |line: String| {
            gate.print(|| {
                // A terminal that is gone shows nothing more; the keyboard notices.
                let _ = printer.print(line);
            });
        };
        prints.iter().for_each(&mut print);
        if gate.is_reading() {
            print(LAST.into());
        }
    };
    thread::Builder::new().name("printer".into()).spawn(run)?;
    Ok(ended)
}

/// Names in a prompt come from others.
fn view_of_prompt(prompt: &str) -> String {
    linger_server::escape::shown(prompt)
}

/// Tells the gate what the editor does. The editor calls these on its own thread, while it reads.
struct Hooks {
    gate: Arc<Gate>,
}

impl Hinter for Hooks {
    type Hint = String;

    fn hint(&self, _line: &str, _at: usize, _context: &Context<'_>) -> Option<String> {
        self.gate.drawn();
        None
    }
}

impl Validator for Hooks {
    fn validate(&self, _context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        self.gate.accepted();
        Ok(ValidationResult::Valid(None))
    }
}

impl Highlighter for Hooks {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Completer for Hooks {
    type Candidate = String;
}

impl Helper for Hooks {}
