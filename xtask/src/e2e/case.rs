//! Cases: what to run, with what, and what must come of it.
//!
//! An example's manifest lists its cases:
//!
//! ```toml
//! [[package.metadata.e2e]]
//! name = "arguments"              # of the case
//! args = ["a", "b"]               # arguments
//! emulated_args = ["a"]           # others under emulation, where less work is wanted
//! env = { K = "v" }               # environment, nothing else is set
//! stdin = "text"                  # input, then its end
//! exit = 3                        # wanted exit code; what the native run returns when absent
//! stdout = "text"                 # wanted output; what the native run prints when absent
//! stderr = ["part", ...]          # pieces that standard error must contain
//! native = false                  # do not run natively: then `exit` and `stdout` count
//! cpus = [1, 2, 4]                # numbers of vCPUs; [1, 4] when absent
//! timeout = 60                    # seconds (three times as many under emulation)
//! sorted = true                   # compare lines in any order
//! times = 200                     # so often in a row on our own monitor, without one failure
//! signal = { after = "ready", send = "INT" }
//! ```

use anyhow::{Context, Result, bail};
use cargo_metadata::Package;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Arguments under emulation.
    pub emulated_args: Option<Vec<String>>,
    /// The whole environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Input.
    #[serde(default)]
    pub stdin: String,
    /// Wanted exit code.
    pub exit: Option<i32>,
    /// Wanted output.
    pub stdout: Option<String>,
    /// Pieces of standard error.
    #[serde(default)]
    pub stderr: Vec<String>,
    /// Whether a native run is the measure.
    #[serde(default = "yes")]
    pub native: bool,
    /// Numbers of vCPUs.
    #[serde(default = "one_and_four")]
    pub cpus: Vec<u32>,
    /// Seconds.
    #[serde(default = "a_minute")]
    pub timeout: u64,
    /// Compare lines in any order.
    #[serde(default)]
    pub sorted: bool,
    /// Runs in a row on our own monitor; elsewhere one is enough.
    #[serde(default = "once")]
    pub times: u32,
    /// A signal from outside.
    pub signal: Option<Signal>,
}

/// `{ after = "ready", send = "INT" }`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// The line of output after which it is sent.
    pub after: String,
    /// `INT` or `TERM`.
    pub send: String,
}

fn yes() -> bool {
    true
}

fn one_and_four() -> Vec<u32> {
    vec![1, 4]
}

fn once() -> u32 {
    1
}

fn a_minute() -> u64 {
    60
}

impl Case {
    /// A case with these arguments and everything else as usual.
    pub fn new(name: &str, args: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            emulated_args: None,
            env: BTreeMap::new(),
            stdin: String::new(),
            exit: None,
            stdout: None,
            stderr: Vec::new(),
            native: true,
            cpus: one_and_four(),
            timeout: a_minute(),
            sorted: false,
            times: once(),
            signal: None,
        }
    }

    /// The arguments, emulated or not.
    pub fn args(&self, emulated: bool) -> &[String] {
        self.emulated_args
            .as_ref()
            .filter(|_| emulated)
            .unwrap_or(&self.args)
    }

    /// The cases of an example.
    pub fn of(package: &Package) -> Result<Vec<Self>> {
        let Some(cases) = package.metadata.get("e2e") else {
            if package.metadata.get("dialogue").is_some() {
                return Ok(Vec::new());
            }
            bail!("example {} has no [[package.metadata.e2e]]", package.name)
        };
        serde_json::from_value(cases.clone())
            .with_context(|| format!("cases of example {}", package.name))
    }
}

impl Signal {
    /// The signal as a number.
    pub fn number(&self) -> Result<rustix::process::Signal> {
        match self.send.as_str() {
            "INT" => Ok(rustix::process::Signal::INT),
            "TERM" => Ok(rustix::process::Signal::TERM),
            other => bail!("signal `{other}` is neither INT nor TERM"),
        }
    }
}
