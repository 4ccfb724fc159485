//! Input and output for people: messages come in above an input line that stays whole.
//!
//! Three threads share it. The first thread owns the terminal and the keyboard; the session's thread has the output side;
//! a third thread prints, because the line editor may keep a print waiting. The editor draws and reads by itself.

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

use super::event_loop::{Input, View};
use super::print_lock::PrintLock;
use super::render;
use super::session::Output;
use linger_server::sync::Arc;

/// Lines that may wait to be printed; when there are more, the session stops reading from the server.
const PRINTS_MAX: usize = 1024;

/// How long prints wait for the session's next prompt. Without one by then, they go straight to the terminal.
const PROMPT: Duration = Duration::from_millis(200);

/// How long prints may take at the end.
const LAST_PRINTS: Duration = Duration::from_secs(1);

/// Printed after the last message. The editor takes one print at a time: when it has taken this one, the last message is
/// on the terminal. This line itself may be lost.
const LAST: &str = "* closing\n";

/// The output side, which the session's thread has.
pub(super) struct Terminal {
    prints: Option<Sender<String>>,
    prompts: Option<Sender<String>>,
    /// Disconnected when the printer has ended.
    printer: Receiver<()>,
    print_lock: Arc<PrintLock>,
}

/// The input side, which the thread that owns the terminal has.
pub(super) struct Keyboard {
    editor: Editor<EditorHooks, MemHistory>,
    prompts: Receiver<String>,
    input: Sender<Input>,
    print_lock: Arc<PrintLock>,
}

/// Opens the terminal. Fails where it cannot do what the line editor needs.
pub(super) fn open() -> Result<(Terminal, Keyboard, Receiver<Input>), ReadlineError> {
    // Pasted lines are read like typed ones.
    let config = Config::builder().bracketed_paste(false).build();
    let history = MemHistory::with_config(&config);
    let mut editor = Editor::with_history(config, history)?;
    let printer = editor.create_external_printer()?;
    let print_lock = Arc::new(PrintLock::new());
    editor.set_helper(Some(EditorHooks { print_lock: Arc::clone(&print_lock) }));
    let (prints, to_print) = unbounded();
    let (prompts, to_ask) = unbounded();
    let (input, lines) = unbounded();
    let printer = start_printer(printer, to_print, Arc::clone(&print_lock))?;
    let terminal = Terminal {
        prints: Some(prints),
        prompts: Some(prompts),
        printer,
        print_lock: Arc::clone(&print_lock),
    };
    Ok((terminal, Keyboard { editor, prompts: to_ask, input, print_lock }, lines))
}

impl View for Terminal {
    fn show(&mut self, output: &Output) -> io::Result<bool> {
        let line = render::render_for_terminal(output) + "\n";
        Ok(self.prints.as_ref().is_some_and(|prints| prints.send(line).is_ok()))
    }

    fn has_room(&self) -> bool {
        self.prints.as_ref().is_some_and(|prints| prints.len() < PRINTS_MAX)
    }

    fn ask(&mut self, prompt: String) {
        // Sending fails only at the end, when the keyboard's thread is over.
        let _ = self.prompts.iter().try_for_each(|prompts| prompts.send(render_prompt(&prompt)));
    }
}

impl Drop for Terminal {
    /// Waits for the last prints, then ends the keyboard's thread.
    fn drop(&mut self) {
        self.prompts = None;
        self.prints = None;
        // The printer sends nothing: this returns when it ends.
        let _ = self.printer.recv_timeout(LAST_PRINTS);
        self.print_lock.close();
    }
}

impl Keyboard {
    /// Reads a line for each prompt, until there are no more prompts.
    pub(super) fn read(mut self) {
        while let Some(prompt) = self.next_prompt() {
            self.print_lock.begin();
            let input = match self.editor.readline(&prompt) {
                Ok(line) => {
                    // The line is used also where the history does not take it.
                    let _ = self.editor.add_history_entry(&line);
                    Input::Line(line)
                }
                Err(error) => {
                    self.print_lock.idle();
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
        self.print_lock.idle();
    }

    fn next_prompt(&self) -> Option<String> {
        match self.prompts.recv_timeout(PROMPT) {
            Err(RecvTimeoutError::Timeout) => {
                self.print_lock.idle();
                self.prompts.recv().ok()
            }
            prompt => prompt.ok(),
        }
    }
}

fn start_printer(
    mut printer: impl ExternalPrinter + Send + 'static,
    prints: Receiver<String>,
    print_lock: Arc<PrintLock>,
) -> io::Result<Receiver<()>> {
    let (running, ended) = bounded(0);
    let run = move || {
        let _running: Sender<()> = running;
        let mut print = |line: String| {
            print_lock.print(|| {
                // A print fails when the terminal is gone, and the keyboard's thread sees that too.
                let _ = printer.print(line);
            });
        };
        prints.iter().for_each(&mut print);
        if print_lock.is_reading() {
            print(LAST.into());
        }
    };
    thread::Builder::new().name("printer".into()).spawn(run)?;
    Ok(ended)
}

/// Names in a prompt come from other users, so they are made harmless.
fn render_prompt(prompt: &str) -> String {
    linger_server::escape::shown(prompt)
}

/// Tells the print lock what the editor does. The editor calls these on its own thread, while it reads.
struct EditorHooks {
    print_lock: Arc<PrintLock>,
}

impl Hinter for EditorHooks {
    type Hint = String;

    fn hint(&self, _line: &str, _at: usize, _context: &Context<'_>) -> Option<String> {
        self.print_lock.drawn();
        None
    }
}

impl Validator for EditorHooks {
    fn validate(&self, _context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        self.print_lock.accepted();
        Ok(ValidationResult::Valid(None))
    }
}

impl Highlighter for EditorHooks {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Completer for EditorHooks {
    type Candidate = String;
}

impl Helper for EditorHooks {}
