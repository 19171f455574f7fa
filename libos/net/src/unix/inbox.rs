//! What waits to be read at an AF_UNIX socket: [`Inbox`], a queue of messages with their control data.

use crate::addr::UnixName;
use crate::message::{Ancillary, scatter};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Small writes to a stream are joined up to this size.
const JOIN: usize = 4096;

pub(super) struct Message {
    pub data: Vec<u8>,
    /// Bytes of `data` that were read already (streams).
    pub start: usize,
    pub from: UnixName,
    pub ancillary: Ancillary,
}

#[derive(Default)]
pub(super) struct Inbox {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Inbox {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Unread bytes of all messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn first_len(&self) -> usize {
        self.messages.front().map_or(0, |m| m.data.len() - m.start)
    }

    pub fn push(&mut self, message: Message) {
        self.bytes += message.data.len();
        self.messages.push_back(message);
    }

    /// The newest message, when a stream's plain bytes may simply be added to it.
    pub fn joinable(&mut self, len: usize) -> Option<&mut Vec<u8>> {
        let last = self
            .messages
            .back_mut()
            .filter(|m| m.ancillary.is_plain() && m.data.len() + len <= JOIN)?;
        self.bytes += len;
        Some(&mut last.data)
    }

    /// Reads a stream: bytes of as many messages as fit, but never across control data.
    pub fn read_stream(&mut self, out: &mut [&mut [u8]], peek: bool) -> (usize, Ancillary) {
        let room: usize = out.iter().map(|s| s.len()).sum();
        let (mut done, mut at, mut ancillary) = (0, 0, Ancillary::default());
        while done < room || room == 0 {
            let Some(message) = self.messages.get_mut(at) else {
                break;
            };
            if !message.ancillary.is_plain() {
                if done > 0 {
                    break;
                }
                // Whoever peeks gets descriptors too, as on Linux.
                ancillary = if peek {
                    message.ancillary.clone()
                } else {
                    core::mem::take(&mut message.ancillary)
                };
            }
            let len = scatter(&message.data[message.start..], out, done);
            done += len;
            if peek {
                at += 1;
            } else {
                message.start += len;
                self.bytes -= len;
                if message.start < message.data.len() {
                    break;
                }
                self.messages.pop_front();
            }
            if !ancillary.is_plain() || room == 0 {
                break;
            }
        }
        (done, ancillary)
    }

    /// Reads one message: bytes stored, bytes it has, sender, control data.
    pub fn read_message(
        &mut self,
        out: &mut [&mut [u8]],
        peek: bool,
    ) -> Option<(usize, usize, UnixName, Ancillary)> {
        if peek {
            let message = self.messages.front()?;
            let len = scatter(&message.data, out, 0);
            return Some((
                len,
                message.data.len(),
                message.from.clone(),
                message.ancillary.clone(),
            ));
        }
        let message = self.messages.pop_front()?;
        self.bytes -= message.data.len();
        let len = scatter(&message.data, out, 0);
        Some((len, message.data.len(), message.from, message.ancillary))
    }
}
