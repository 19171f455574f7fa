//! Writes the jump into a window and the trampoline it leads to.
//!
//! ```text
//! window:     jmp  trampoline; int3...        [the site itself, when it is kept]
//! trampoline: <moved instructions that stood before>
//!             lea  return(%rip), %rcx
//!             jmp  *%gs:SYSCALL_ENTRY
//!             syscall                          # never reached by falling through
//! return:     <moved instructions that stood after>
//!             jmp  end of the window
//! ```
//! With a kept site `return` is the original address after it and the last three lines are not there. Either way **the two
//! bytes before the return address are a `syscall`**, as for a real system call: a signal handler that
//! looks at them, or a restart at the return address minus two, works the same. The `cpuid` shape is in `unik_abi::gs`.

use unik_abi::gs;

use super::SiteKind;
use super::sweep::{Insn, Site};
use super::window::{JUMP_LEN, Window};

/// Distance between trampolines.
const ALIGN: usize = 16;
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const INT3: u8 = 0xcc;

/// Bytes for both places.
#[derive(Debug, PartialEq, Eq)]
pub struct Made {
    /// For the window, exactly its length.
    pub patch: Vec<u8>,
    /// The trampoline, a multiple of 16 bytes.
    pub trampoline: Vec<u8>,
}

/// Makes the trampoline of `site` at address `at`; `None` when it is farther than 2 GiB away.
pub fn make(site: &Site, window: &Window, at: u64) -> Option<Made> {
    let mut patch = Code::new(window.start);
    patch.jump(at)?;
    patch
        .bytes
        .resize((window.end - window.start) as usize, INT3);
    let mut code = Code::new(at);
    code.insns(&site.insns[window.before.clone()])?;
    let original_end = site.insns[site.index].end();
    match site.kind {
        SiteKind::Syscall => code.syscall(window.keeps_site.then_some(original_end))?,
        SiteKind::Cpuid => code.cpuid()?,
    }
    let after = &site.insns[window.after.clone()];
    code.insns(after)?;
    let returns = after.last().is_some_and(|i| i.ret);
    let in_place = window.keeps_site && site.kind == SiteKind::Syscall;
    if !returns && !in_place {
        code.jump(if window.keeps_site {
            original_end
        } else {
            window.end
        })?;
    }
    code.bytes
        .resize(code.bytes.len().next_multiple_of(ALIGN), INT3);
    Some(Made {
        patch: patch.bytes,
        trampoline: code.bytes,
    })
}

/// Machine code for a known address.
pub(crate) struct Code {
    vaddr: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Code {
    pub(crate) fn new(vaddr: u64) -> Self {
        Self {
            vaddr,
            bytes: Vec::new(),
        }
    }

    fn insns(&mut self, insns: &[Insn]) -> Option<()> {
        insns.iter().try_for_each(|i| self.insn(i))
    }

    /// The instruction, its rip-relative distance made to mean the same address from here.
    fn insn(&mut self, insn: &Insn) -> Option<()> {
        let start = self.bytes.len();
        self.put(insn.bytes());
        let Some((at, target)) = insn.relative else {
            return Some(());
        };
        let end = self.vaddr + self.bytes.len() as u64;
        let distance = i32::try_from(target.wrapping_sub(end).cast_signed()).ok()?;
        let place = self
            .bytes
            .get_mut(start + usize::from(at)..)?
            .first_chunk_mut()?;
        *place = distance.to_le_bytes();
        Some(())
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// `opcode` with a 4-byte distance to `target` as its last operand.
    fn relative(&mut self, opcode: &[u8], target: u64) -> Option<()> {
        self.put(opcode);
        let end = self.vaddr + self.bytes.len() as u64 + 4;
        let distance = i32::try_from(target.wrapping_sub(end).cast_signed()).ok()?;
        self.put(&distance.to_le_bytes());
        Some(())
    }

    fn jump(&mut self, target: u64) -> Option<()> {
        const JMP: [u8; (JUMP_LEN - 4) as usize] = [0xe9];
        self.relative(&JMP, target)
    }

    /// `opcode`, then a gs-relative address.
    fn at_gs(&mut self, opcode: &[u8], slot: u32) {
        self.put(opcode);
        self.put(&slot.to_le_bytes());
    }

    /// The call to the system-call entry that returns to `to`, or else right behind itself.
    pub(crate) fn syscall(&mut self, to: Option<u64>) -> Option<()> {
        const LEA_RCX: [u8; 3] = [0x48, 0x8d, 0x0d];
        const JMP_GS: [u8; 4] = [0x65, 0xff, 0x24, 0x25];
        const REST: u64 = (LEA_RCX.len() + 4 + JMP_GS.len() + 4 + SYSCALL.len()) as u64;
        let behind = self.vaddr + self.bytes.len() as u64 + REST;
        self.relative(&LEA_RCX, to.unwrap_or(behind))?;
        self.at_gs(&JMP_GS, gs::SYSCALL_ENTRY);
        if to.is_none() {
            self.put(&SYSCALL);
        }
        Some(())
    }

    fn cpuid(&mut self) -> Option<()> {
        self.at_gs(&[0x65, 0xc6, 0x04, 0x25], gs::MASKED); // movb $1, %gs:MASKED
        self.put(&[1]);
        self.at_gs(&[0x65, 0x4c, 0x89, 0x1c, 0x25], gs::CPUID_R11); // mov %r11, %gs:CPUID_R11
        let behind = self.vaddr + self.bytes.len() as u64 + 7 + 8;
        self.relative(&[0x4c, 0x8d, 0x1d], behind)?; // lea behind(%rip), %r11
        self.at_gs(&[0x65, 0xff, 0x24, 0x25], gs::CPUID_ENTRY); // jmp *%gs:CPUID_ENTRY
        self.at_gs(&[0x65, 0x4c, 0x8b, 0x1c, 0x25], gs::CPUID_R11); // mov %gs:CPUID_R11, %r11
        self.at_gs(&[0x65, 0xc6, 0x04, 0x25], gs::MASKED); // movb $0, %gs:MASKED
        self.put(&[0]);
        Some(())
    }
}
