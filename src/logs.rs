//! Log lines on their way to stderr. A thread that writes many at once has them gathered, for each would be a system call.
//!
//! Any thread may log; each gathers for itself alone. Lines of several threads may be out of order then; their times are
//! not.

use std::cell::RefCell;
use std::io::{self, Write};
use std::marker::PhantomData;

/// Gathered lines that are written before their thread says so, in bytes.
const GATHERED_MAX: usize = 64 * 1024;

thread_local! {
    /// What this thread has gathered; none where it does not gather.
    static GATHERED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Where log lines go: to stderr, or to those that the thread has gathered. What cannot be written is dropped: there is
/// no better place to say so.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        GATHERED.with_borrow_mut(|gathered| match gathered {
            None => io::stderr().write_all(line),
            Some(lines) => {
                lines.extend_from_slice(line);
                if lines.len() >= GATHERED_MAX { write_out(lines) } else { Ok(()) }
            }
        })?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// While it lives, the lines of its thread are gathered.
#[derive(Debug)]
pub struct Gathering {
    /// It belongs to its thread.
    _here: PhantomData<*const ()>,
}

impl Gathering {
    /// Has the lines of this thread gathered from now on.
    pub fn begin() -> Self {
        GATHERED.set(Some(Vec::new()));
        Gathering { _here: PhantomData }
    }

    /// Writes what has been gathered.
    pub fn write(&self) {
        write_gathered();
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        write_gathered();
        GATHERED.set(None);
    }
}

/// Writes what this thread has gathered, if it does. For a thread that may not come to it any more.
pub fn write_gathered() {
    // A line that is just being written stays.
    let _ =
        GATHERED.with(|gathered| gathered.try_borrow_mut().map(|mut lines| lines.as_mut().map(write_out)));
}

fn write_out(lines: &mut Vec<u8>) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let written = io::stderr().write_all(lines);
    lines.clear();
    lines.shrink_to(GATHERED_MAX);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered() -> Option<usize> {
        GATHERED.with_borrow(|gathered| gathered.as_ref().map(Vec::len))
    }

    #[test]
    fn lines_are_gathered_until_their_thread_says_so_or_there_are_many() {
        let line = [b' '; 100];
        Lines.write_all(&line[..0]).unwrap();
        assert_eq!(gathered(), None, "it does not gather yet");
        let gathering = Gathering::begin();
        Lines.write_all(&line).unwrap();
        Lines.write_all(&line).unwrap();
        assert_eq!(gathered(), Some(200));
        std::thread::spawn(|| assert_eq!(gathered(), None, "another thread")).join().unwrap();
        gathering.write();
        assert_eq!(gathered(), Some(0));
        for _ in 0..GATHERED_MAX / line.len() {
            Lines.write_all(&line).unwrap();
        }
        assert_eq!(gathered(), Some(GATHERED_MAX / line.len() * line.len()));
        Lines.write_all(&line).unwrap();
        assert_eq!(gathered(), Some(0), "they are many");
        drop(gathering);
        assert_eq!(gathered(), None);
    }
}
