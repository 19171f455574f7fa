//! A machine that breaks down under a test is replaced and the test is repeated, and so is a test that fails: what the emulator does
//! wrong is no verdict on us.
//!
//! QEMU's own monitor with 16 processors brings a machine of two down as ours does, within a dozen boots or so: the machine's
//! kernel finds a stack of its own overwritten, or a device's queue holds nonsense. With one processor that is rare. So only what goes wrong
//! in two machines counts, whatever the machine's kernel says of it. Only so often, and loudly.

use super::outer::Breakdown;
use crate::sh;
use crate::tally::Verdict;
use anyhow::Result;

/// How many machines may be replaced for one kind of test.
pub const SPARES: u32 = 6;

/// Machines of one kind, one after the other.
pub struct Machines<'a, M> {
    boot: Box<dyn Fn() -> Result<M> + 'a>,
    now: Option<M>,
    spares: &'a mut u32,
}

impl<'a, M> Machines<'a, M> {
    /// Boots the first. `spares` counts down and belongs to the whole run.
    pub fn new(spares: &'a mut u32, boot: impl Fn() -> Result<M> + 'a) -> Result<Self> {
        let first = boot()?;
        Ok(Self {
            boot: Box::new(boot),
            now: Some(first),
            spares,
        })
    }

    /// Runs a test from its beginning until a machine survives it. An error: it has no verdict; the next test gets a fresh machine while
    /// there are spare ones.
    pub fn run<T>(&mut self, title: &str, test: impl Fn(&M) -> Result<T>) -> Result<T> {
        loop {
            let machine = match self.now.take() {
                Some(machine) => machine,
                None => (self.boot)()?,
            };
            let error = match test(&machine) {
                Ok(result) => {
                    self.now = Some(machine);
                    return Ok(result);
                }
                Err(error) => error,
            };
            let Some(breakdown) = error.downcast_ref::<Breakdown>() else {
                self.now = Some(machine);
                return Err(error);
            };
            if *self.spares == 0 {
                self.boot = Box::new(|| anyhow::bail!("no machine is left"));
                return Err(error);
            }
            *self.spares -= 1;
            self.tell(title, &breakdown.0);
        }
    }

    /// Like [`Machines::run`], and a verdict against us must come from two machines.
    pub fn judge<T>(
        &mut self,
        title: &str,
        test: impl Fn(&M) -> Result<(T, Verdict)>,
    ) -> Result<(T, Verdict)> {
        let first = self.run(title, &test)?;
        match &first.1 {
            Err(why) if *self.spares > 0 => {
                *self.spares -= 1;
                self.now = None;
                self.tell(title, why);
                self.run(title, &test)
            }
            _ => Ok(first),
        }
    }

    fn tell(&self, title: &str, why: &str) {
        let (fail, left) = (sh::FAIL, &self.spares);
        anstream::eprintln!(
            "{fail}REPEATED{fail:#} {title}: {why}\n{fail}REPEATED{fail:#} in a fresh machine; {left} more may be used up"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn broken() -> anyhow::Error {
        Breakdown("broke down".to_owned()).into()
    }

    #[test]
    fn a_test_is_repeated_in_a_fresh_machine() {
        let (booted, mut spares) = (Cell::new(0u32), SPARES);
        let boot = || Ok(booted.replace(booted.get() + 1));
        let mut machines = Machines::new(&mut spares, boot).unwrap();
        let second = |machine: &u32| match machine {
            0 => Err(broken()),
            n => Ok(*n),
        };
        assert_eq!(machines.run("a", second).unwrap(), 1);
        assert_eq!(machines.run("b", second).unwrap(), 1);
        assert_eq!((booted.get(), *machines.spares), (2, SPARES - 1));
    }

    #[test]
    fn not_for_ever() {
        let (booted, mut spares) = (Cell::new(0u32), SPARES);
        let boot = || Ok(_ = booted.replace(booted.get() + 1));
        let mut machines = Machines::new(&mut spares, boot).unwrap();
        assert!(machines.run("a", |()| Err::<(), _>(broken())).is_err());
        // Nothing runs in what broke down.
        assert!(machines.run("b", |()| Ok(())).is_err());
        assert_eq!(booted.get(), SPARES + 1);
    }

    #[test]
    fn two_machines_must_agree_that_a_test_fails() {
        let (booted, mut spares) = (Cell::new(0u32), SPARES);
        let boot = || Ok(booted.replace(booted.get() + 1));
        let mut machines = Machines::new(&mut spares, boot).unwrap();
        let once = |machine: &u32| match machine {
            0 => Ok((0, Err("wrong".to_owned()))),
            n => Ok((*n, Ok(()))),
        };
        assert_eq!(machines.judge("a", once).unwrap(), (1, Ok(())));
        let always = |machine: &u32| Ok((*machine, Err("wrong".to_owned())));
        let wrong = Err("wrong".to_owned());
        assert_eq!(machines.judge("b", always).unwrap(), (2, wrong.clone()));
        assert_eq!(*machines.spares, SPARES - 2);
        // And when no machine is to spare, one will do.
        *machines.spares = 0;
        assert_eq!(machines.judge("b", always).unwrap(), (2, wrong));
    }

    #[test]
    fn other_errors_leave_the_machine() {
        let mut spares = SPARES;
        let mut machines = Machines::new(&mut spares, || Ok(())).unwrap();
        assert!(
            machines
                .run("a", |()| Err::<(), _>(anyhow::anyhow!("no")))
                .is_err()
        );
        machines.run("b", |()| Ok(())).unwrap();
        assert_eq!(*machines.spares, SPARES);
    }
}
