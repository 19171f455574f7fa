//! The control page: signals and hang-ups to the guest, phases and last words from it.
//!
//! The guest can write anything there; what is read is numbers to compare and text to print.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use unik_abi::control::{CONTROL_VECTOR, ControlPage, MESSAGE_LEN, PHASES};
use unik_abi::layout::CONTROL_PAGE_PADDR;
use unik_host::kvm::{Msi, Vm};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory};

/// The page of a running guest and the interrupt that points it out.
#[derive(Clone)]
pub struct Mailbox {
    mem: GuestMemoryMmap,
    vm: Arc<Vm>,
}

impl Mailbox {
    /// The page in `mem` of the guest in `vm`.
    pub fn new(mem: GuestMemoryMmap, vm: Arc<Vm>) -> Self {
        Self { mem, vm }
    }

    /// Sends `signal` (1 to 64) to the program.
    pub fn send(&self, signal: u8) {
        self.set_bits(
            core::mem::offset_of!(ControlPage, signals),
            1 << (signal.saturating_sub(1) & 63),
        );
    }

    /// Whether the program said that it handles or ignores `signal` itself.
    pub fn handles(&self, signal: u8) -> bool {
        let at = address(core::mem::offset_of!(ControlPage, handled));
        let handled: u64 = self.mem.load(at, Ordering::Acquire).unwrap_or(0);
        handled & 1 << (signal.saturating_sub(1) & 63) != 0
    }

    /// Says that nobody reads the program's stream `number` any more.
    pub fn hang_up(&self, number: u32) {
        self.set_bits(
            core::mem::offset_of!(ControlPage, hangups),
            1 << (number & 63),
        );
    }

    /// Sets bits of a word and interrupts the guest. Without memory or an APIC there is nobody to tell.
    fn set_bits(&self, offset: usize, bits: u64) {
        let Ok(page) = self.mem.get_slice(address(offset), size_of::<u64>()) else {
            return;
        };
        if let Ok(word) = page.get_atomic_ref::<AtomicU64>(0) {
            word.fetch_or(bits, Ordering::AcqRel);
            let _ = self.vm.signal(Msi::fixed(0, CONTROL_VECTOR));
        }
    }
}

fn address(offset: usize) -> GuestAddress {
    GuestAddress(CONTROL_PAGE_PADDR + offset as u64)
}

/// What the page of a stopped guest says.
#[derive(Clone, Debug, Default)]
pub struct LastWords {
    /// Guest TSC at each phase, 0 when not reached.
    pub phases: [u64; PHASES],
    /// Faulting instruction pointer.
    pub rip: u64,
    /// Faulting address.
    pub addr: u64,
    /// Exception vector.
    pub vector: u64,
    /// Error code.
    pub error: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Where a position-independent program was loaded.
    pub program_base: u64,
    /// What happened, clamped and escaped: printable characters and line ends only.
    pub message: String,
}

impl LastWords {
    /// Reads the page once.
    pub fn read(mem: &GuestMemoryMmap) -> Self {
        use core::mem::offset_of;
        let word = |offset| mem.read_obj::<u64>(address(offset)).unwrap_or(0);
        let len = word(offset_of!(ControlPage, message_len)).min(MESSAGE_LEN as u64);
        let mut text = vec![0; len as usize];
        if mem
            .read_slice(&mut text, address(offset_of!(ControlPage, message)))
            .is_err()
        {
            text.clear();
        }
        Self {
            phases: std::array::from_fn(|i| word(offset_of!(ControlPage, phases) + 8 * i)),
            rip: word(offset_of!(ControlPage, fault_rip)),
            addr: word(offset_of!(ControlPage, fault_addr)),
            vector: word(offset_of!(ControlPage, fault_vector)),
            error: word(offset_of!(ControlPage, fault_error)),
            rsp: word(offset_of!(ControlPage, fault_rsp)),
            program_base: word(offset_of!(ControlPage, program_base)),
            message: escape(&text),
        }
    }
}

/// Text up to its first NUL that cannot move the cursor or change the terminal; further lines are indented.
fn escape(bytes: &[u8]) -> String {
    let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' => out.push_str("\n  "),
            '\t' => out.push('\t'),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_words_are_clamped_and_escaped() {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        mem.write_slice(&[0xff; 4096], GuestAddress(CONTROL_PAGE_PADDR))
            .unwrap();
        let words = LastWords::read(&mem);
        assert_eq!(words.message.chars().count(), MESSAGE_LEN);
        assert_eq!(escape(b"a\x1b[2J\x07b\nc\t\r\n"), "a\\u{1b}[2J\\u{7}b\n  c");
        assert_eq!(escape(b"a\0b"), "a");
    }

    #[test]
    fn without_memory_there_are_no_words() {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        assert_eq!(LastWords::read(&mem).message, "");
    }
}
