//! A machine that breaks down under a test is replaced and the test is repeated: what an emulator does wrong is no verdict on us.
//!
//! Only so often, loudly, and never when the machine's own kernel complained: that our monitor may have caused.

use super::outer::Breakdown;
use crate::sh;
use anyhow::Result;

/// How many machines may be replaced in one run.
pub const SPARES: u32 = 2;

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
            let (again, left) = (!breakdown.oops, *self.spares);
            if left == 0 {
                self.boot = Box::new(|| anyhow::bail!("no machine is left"));
                return Err(error);
            }
            *self.spares -= 1;
            if !again {
                return Err(error);
            }
            anstream::eprintln!(
                "{}REPEATED{:#} {title}: {error:#}\n{}REPEATED{:#} in a fresh machine; {} more may break down",
                sh::FAIL,
                sh::FAIL,
                sh::FAIL,
                sh::FAIL,
                self.spares
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn broken(oops: bool) -> anyhow::Error {
        let text = "broke down".to_owned();
        Breakdown { text, oops }.into()
    }

    #[test]
    fn a_test_is_repeated_in_a_fresh_machine() {
        let (booted, mut spares) = (Cell::new(0), SPARES);
        let boot = || Ok(booted.replace(booted.get() + 1));
        let mut machines = Machines::new(&mut spares, boot).unwrap();
        let second = |machine: &i32| match machine {
            0 => Err(broken(false)),
            n => Ok(*n),
        };
        assert_eq!(machines.run("a", second).unwrap(), 1);
        assert_eq!(machines.run("b", second).unwrap(), 1);
        assert_eq!((booted.get(), *machines.spares), (2, 1));
    }

    #[test]
    fn not_for_ever() {
        let (booted, mut spares) = (Cell::new(0), SPARES);
        let boot = || Ok(_ = booted.replace(booted.get() + 1));
        let mut machines = Machines::new(&mut spares, boot).unwrap();
        assert!(machines.run("a", |()| Err::<(), _>(broken(false))).is_err());
        // Nothing runs in what broke down.
        assert!(machines.run("b", |()| Ok(())).is_err());
        assert_eq!(booted.get(), 3);
    }

    #[test]
    fn a_complaint_of_the_machines_kernel_is_a_verdict() {
        let (booted, mut spares) = (Cell::new(0), SPARES);
        let boot = || Ok(_ = booted.replace(booted.get() + 1));
        let mut machines = Machines::new(&mut spares, boot).unwrap();
        assert!(machines.run("a", |()| Err::<(), _>(broken(true))).is_err());
        assert_eq!(booted.get(), 1);
        // The next one is not lost by it.
        machines.run("b", |()| Ok(())).unwrap();
        assert_eq!(booted.get(), 2);
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
