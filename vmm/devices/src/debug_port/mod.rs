//! The debug console port (QEMU's `isa-debugcon`): text before and after the real console, collected into lines.
//!
//! Reads answer [`PRESENT`], by which a guest finds out that the port is there. Nobody should print much here: every write
//! costs an exit.

use std::io::Write;

/// What a read of the port answers.
pub const PRESENT: u8 = 0xe9;

/// A line longer than this is passed on in pieces.
const LINE_LIMIT: usize = 1024;

/// Text that waits for its line to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    line: Vec<u8>,
}

/// The port. Text goes to `W` by whole lines; an error of `W` is nobody's concern, least of all the guest's.
pub struct DebugPort<W: Write> {
    state: State,
    out: W,
}

impl<W: Write> DebugPort<W> {
    /// A port that passes its text to `out`.
    pub fn new(out: W) -> Self {
        Self {
            state: State::default(),
            out,
        }
    }

    /// Takes the bytes of one guest write.
    pub fn write(&mut self, data: &[u8]) {
        for &byte in data {
            self.state.line.push(byte);
            if byte == b'\n' || self.state.line.len() >= LINE_LIMIT {
                self.flush();
            }
        }
    }

    /// Passes on an unfinished line.
    pub fn flush(&mut self) {
        if !self.state.line.is_empty() {
            let _ = self.out.write_all(&self.state.line);
            let _ = self.out.flush();
            self.state.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.push(buf.to_vec());
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_whole() {
        let mut port = DebugPort::new(Writes::default());
        for byte in b"one\ntwo" {
            port.write(&[*byte]);
        }
        assert_eq!(port.out.0, [b"one\n".to_vec()]);
        port.flush();
        port.flush();
        assert_eq!(port.out.0, [b"one\n".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn an_endless_line_needs_no_endless_buffer() {
        let mut port = DebugPort::new(Writes::default());
        port.write(&vec![b'x'; 10 * LINE_LIMIT + 1]);
        assert_eq!(port.out.0.len(), 10);
        assert_eq!(port.state.line.len(), 1);
    }
}
