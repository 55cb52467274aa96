//! How commands write to stdout.

use std::{
    fmt,
    io::{self, StdoutLock, Write},
};

/// Locked stdout whose reader may go away: see [`is_closed`].
pub fn stdout() -> Out {
    Out(io::stdout().lock())
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
