//! Chooses the bytes that a jump to a trampoline may overwrite.
//!
//! A window is at least [`JUMP_LEN`] bytes of whole instructions: the site and neighbours that can be moved, with no
//! jump target inside except at its start. Where the instructions before the site suffice, the site itself stays in place behind
//! the window, unreached: the return address of the bound call is then the original one.

use std::ops::Range;

use super::sweep::Site;
use super::targets::Targets;

/// Length of `jmp rel32`.
pub const JUMP_LEN: u64 = 5;

/// Bytes to overwrite and what they held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// First byte, the start of an instruction.
    pub start: u64,
    /// After the last byte: the end of an instruction.
    pub end: u64,
    /// Indices in `Site::insns` of the instructions moved from before the site.
    pub before: Range<usize>,
    /// And from after it.
    pub after: Range<usize>,
    /// The site stays in place: the window ends where it starts.
    pub keeps_site: bool,
}

impl Window {
    /// Whether instructions before the site alone made room.
    pub fn moves_before(&self) -> bool {
        self.after.is_empty()
    }
}

/// The best window for `site` that starts at or after `free_from`.
pub fn choose(site: &Site, targets: &Targets, free_from: u64) -> Option<Window> {
    let (before, after) = (run_before(site), run_after(site));
    // A kept site must not be jumped to either: the bytes before it might then be data.
    let inside = |w: &Window| w.start + 1..w.end.max(site.vaddr() + 1);
    let possible = |w: &Window| {
        w.end - w.start >= JUMP_LEN && w.start >= free_from && !targets.any_in(inside(w))
    };
    let kept = (1..=before).map(|b| window(site, b, 0, true));
    let consumed = (1..=before).map(|b| window(site, b, 0, false));
    let with_after = (0..=before).flat_map(|b| (1..=after).map(move |a| window(site, b, a, false)));
    kept.chain(consumed).chain(with_after).find(possible)
}

fn window(site: &Site, before: usize, after: usize, keeps_site: bool) -> Window {
    let index = site.index;
    let last = if keeps_site { index - 1 } else { index + after };
    Window {
        start: site.insns[index - before].vaddr,
        end: site.insns[last].end(),
        before: index - before..index,
        after: index + 1..index + 1 + after,
        keeps_site,
    }
}

/// How many instructions before the site can be moved.
fn run_before(site: &Site) -> usize {
    site.insns[..site.index]
        .iter()
        .rev()
        .take_while(|i| i.movable)
        .count()
}

/// How many after it; a `ret` may be the last.
fn run_after(site: &Site) -> usize {
    let rest = &site.insns[site.index + 1..];
    let run = rest.iter().take_while(|i| i.movable).count();
    run + usize::from(rest.get(run).is_some_and(|i| i.ret))
}
