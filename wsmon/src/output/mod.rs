//! How commands write to stdout.

mod escape;
pub mod human;
pub mod table;

pub use escape::{escape, escape_json};

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write},
};

use ratatui::crossterm::terminal;

/// Stdout, locked and buffered (flush it), whose reader may go away: see [`is_closed`].
pub fn stdout() -> BufWriter<Out> {
    BufWriter::new(Out(io::stdout().lock()))
}

/// Whether a person looks at stdout.
pub fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stdout may be coloured: <https://no-color.org>.
pub fn in_colour() -> bool {
    on_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns of the terminal that stdout is, if it is one.
pub fn width() -> Option<usize> {
    if !on_terminal() {
        return None;
    }
    terminal::size()
        .ok()
        .map(|(columns, _)| usize::from(columns))
        .filter(|&columns| columns > 0)
}

/// Whether the reader of stdout went away (`wsmon ls | head`), which is no failure.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Closed>)
    })
}

pub struct Out(StdoutLock<'static>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(mark)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark)
    }
}

#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("nobody reads stdout any more")
    }
}

impl std::error::Error for Closed {}

/// Marks a broken pipe as stdout's, so that one on a network connection is not taken for it.
fn mark(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, Closed),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn only_a_broken_pipe_of_stdout_ends_quietly() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        let ours = Err::<(), _>(mark(pipe())).context("writing").unwrap_err();
        let network = Err::<(), _>(pipe()).context("asking").unwrap_err();
        assert!(is_closed(&ours));
        assert!(!is_closed(&network));
    }
}
