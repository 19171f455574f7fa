//! A laboratory that lasts: when its machine breaks down, a fresh one takes its place and the interrupted test is done again.
//!
//! QEMU's emulation of nested virtualization is not without faults. Seen so far, each once in some hundred guests on a busy host: the
//! emulated processors stand still, and QEMU ends because it read nonsense from a queue of its own. A test of ours says nothing by that. A kernel
//! that panics inside is another matter: a monitor may have done it, so that is never tried again.

use super::note;
use super::outer::{Broken, Laboratory, Maker, Payload, Size};
use crate::sh;
use anyhow::Result;

/// So many machines may break down in one run; more is no accident.
const SPARE: u32 = 2;

/// A machine and what it takes to make another.
#[derive(Debug)]
pub struct Stand<'a> {
    maker: &'a Maker,
    payload: &'a [Payload],
    lab: Laboratory,
    spare: u32,
}

impl<'a> Stand<'a> {
    /// Boots the first machine.
    pub fn boot(maker: &'a Maker, payload: &'a [Payload]) -> Result<Self> {
        Ok(Self {
            maker,
            payload,
            lab: machine(maker, payload)?,
            spare: SPARE,
        })
    }

    /// Runs a test, again from its start when the machine broke down under it.
    pub fn run<T>(
        &mut self,
        title: &str,
        mut test: impl FnMut(&Laboratory) -> Result<T>,
    ) -> Result<T> {
        loop {
            let error = match test(&self.lab) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let accident = error.downcast_ref().is_some_and(Broken::accident);
            if !accident || self.spare == 0 {
                return Err(error);
            }
            self.spare -= 1;
            anstream::println!(
                "{}AGAIN{:#} {title}, in a fresh machine: {error:#}",
                sh::FAIL,
                sh::FAIL
            );
            self.lab = machine(self.maker, self.payload)?;
        }
    }
}

fn machine(maker: &Maker, payload: &[Payload]) -> Result<Laboratory> {
    let lab = Laboratory::boot(maker, payload, Size::default())?;
    note(&lab);
    Ok(lab)
}
