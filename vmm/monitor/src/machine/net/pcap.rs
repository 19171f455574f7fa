//! A copy of the guest's traffic as a file that Wireshark reads (the classic format, with nanoseconds).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::machine::lock;
use crate::net::NetError;

/// "Times are in nanoseconds", in the byte order of this machine.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// Longest frame.
const LONGEST: u32 = 262_144;
/// Frames begin with an Ethernet header.
const LINK_ETHERNET: u32 = 1;

/// The file. A disk that is full ends the copy, not the network.
#[derive(Debug)]
pub struct Pcap(Mutex<Option<BufWriter<File>>>);

impl Pcap {
    /// Makes the file.
    pub fn create(path: &Path) -> Result<Self, NetError> {
        let begin = || {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&MAGIC.to_ne_bytes())?;
            file.write_all(&VERSION.map(u16::to_ne_bytes).concat())?;
            // Two fields that nobody uses: time zone and accuracy.
            file.write_all(
                &[0, 0, LONGEST, LINK_ETHERNET]
                    .map(u32::to_ne_bytes)
                    .concat(),
            )?;
            file.flush()?;
            Ok(file)
        };
        let file = begin().map_err(|source| NetError::Pcap {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(Mutex::new(Some(file))))
    }

    /// Adds a frame.
    pub fn add(&self, frame: &[u8]) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let len = frame.len() as u32;
        let words = [now.as_secs() as u32, now.subsec_nanos(), len, len];
        self.write(|file| {
            file.write_all(&words.map(u32::to_ne_bytes).concat())?;
            file.write_all(frame)
        });
    }

    /// Puts everything into the file.
    pub fn flush(&self) {
        self.write(Write::flush);
    }

    fn write(&self, work: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) {
        let mut file = lock(&self.0);
        if let Some(Err(error)) = file.as_mut().map(work) {
            *file = None;
            crate::errors::say(&format!(
                "unik: the traffic is no longer written: {error}\n"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_frames() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcap");
        let pcap = Pcap::create(&path).unwrap();
        pcap.add(&[7; 60]);
        pcap.flush();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 60);
        assert_eq!(bytes[..4], MAGIC.to_ne_bytes());
        assert_eq!(bytes[32..36], 60u32.to_ne_bytes());
        assert!(bytes[40..].iter().all(|&b| b == 7));
        assert!(Pcap::create(dir.path()).is_err());
    }
}
