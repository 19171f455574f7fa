//! What the laboratory's machine and `cargo xtask lab` say to each other over one byte stream.
//!
//! A message is a frame: its length as 4 bytes little endian, then its fields. Numbers are 8 bytes little endian; a list or
//! a string of bytes has its length before it. The machine says [`HELLO`] once, then answers each [`Job`] with a [`Done`], in any order.
//! A frame of length 0 from outside switches the machine off.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

/// The name of the virtio-serial port.
pub const PORT: &str = "unik.lab";

/// The machine's first frame.
pub const HELLO: &[u8] = b"unik lab 1";

/// No frame is longer.
const MAX_FRAME: u32 = 256 << 20;

/// Something to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Chosen by whoever asks.
    pub id: u64,
    /// Program and arguments.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment, `NAME=VALUE`.
    pub env: Vec<Vec<u8>>,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// Milliseconds after which the program and its children are killed.
    pub limit_ms: u64,
    /// Signal to send once standard output ends with a line, 0 for none.
    pub signal: u64,
    /// That line.
    pub signal_after: Vec<u8>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The job's.
    pub id: u64,
    /// Exit code, or 128 + signal; 127 when it could not be started.
    pub code: u64,
    /// 1 when it had to be killed.
    pub late: u64,
    /// Wall time in nanoseconds, inside.
    pub nanos: u64,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Job {
    /// As a frame's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, self.id);
        list(&mut out, &self.argv);
        list(&mut out, &self.env);
        bytes(&mut out, &self.stdin);
        number(&mut out, self.limit_ms);
        number(&mut out, self.signal);
        bytes(&mut out, &self.signal_after);
        out
    }

    /// From a frame's content; `None` when it is not one.
    pub fn decode(mut frame: &[u8]) -> Option<Self> {
        let f = &mut frame;
        Some(Self {
            id: take_number(f)?,
            argv: take_list(f)?,
            env: take_list(f)?,
            stdin: take_bytes(f)?,
            limit_ms: take_number(f)?,
            signal: take_number(f)?,
            signal_after: take_bytes(f)?,
        })
    }
}

impl Done {
    /// As a frame's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for value in [self.id, self.code, self.late, self.nanos] {
            number(&mut out, value);
        }
        bytes(&mut out, &self.stdout);
        bytes(&mut out, &self.stderr);
        out
    }

    /// From a frame's content; `None` when it is not one.
    pub fn decode(mut frame: &[u8]) -> Option<Self> {
        let f = &mut frame;
        Some(Self {
            id: take_number(f)?,
            code: take_number(f)?,
            late: take_number(f)?,
            nanos: take_number(f)?,
            stdout: take_bytes(f)?,
            stderr: take_bytes(f)?,
        })
    }
}

/// Writes one frame.
pub fn send(to: &mut impl Write, content: &[u8]) -> io::Result<()> {
    let len = u32::try_from(content.len())
        .ok()
        .filter(|&len| len <= MAX_FRAME)
        .ok_or_else(|| io::Error::other("message too long for the laboratory"))?;
    let mut frame = len.to_le_bytes().to_vec();
    frame.extend_from_slice(content);
    to.write_all(&frame)?;
    to.flush()
}

/// Reads one frame.
pub fn receive(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > MAX_FRAME {
        return Err(io::Error::other("message too long for the laboratory"));
    }
    let mut content = vec![0; len as usize];
    from.read_exact(&mut content)?;
    Ok(content)
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    number(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn list(out: &mut Vec<u8>, values: &[Vec<u8>]) {
    number(out, values.len() as u64);
    values.iter().for_each(|value| bytes(out, value));
}

fn take_number(from: &mut &[u8]) -> Option<u64> {
    let (head, rest) = from.split_first_chunk::<8>()?;
    *from = rest;
    Some(u64::from_le_bytes(*head))
}

fn take_bytes(from: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(take_number(from)?).ok()?;
    let (head, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(head.to_vec())
}

fn take_list(from: &mut &[u8]) -> Option<Vec<Vec<u8>>> {
    let len = take_number(from)?;
    (0..len).map(|_| take_bytes(from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_sent() {
        let job = Job {
            id: 7,
            argv: vec![b"a".to_vec(), vec![]],
            env: vec![b"A=1".to_vec()],
            stdin: vec![0, 255],
            limit_ms: 9,
            signal: 2,
            signal_after: b"ready".to_vec(),
        };
        assert_eq!(Job::decode(&job.encode()), Some(job.clone()));
        assert_eq!(Job::decode(&job.encode()[..20]), None);
        let done = Done {
            id: 7,
            code: 3,
            stdout: vec![1; 1000],
            ..Done::default()
        };
        assert_eq!(Done::decode(&done.encode()), Some(done.clone()));
        let mut stream = Vec::new();
        send(&mut stream, &done.encode()).unwrap();
        assert_eq!(receive(&mut stream.as_slice()).unwrap(), done.encode());
    }

    #[test]
    fn lengths_are_not_believed() {
        assert_eq!(Done::decode(&[0xff; 48]), None);
        assert!(receive(&mut &[0xff; 8][..]).is_err());
    }
}
