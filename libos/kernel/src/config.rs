//! The run configuration: the image's manifest with the monitor's records over it (`unik_abi::config`).

use alloc::vec::Vec;
use spin::Once;

/// What was asked for.
#[derive(Default)]
pub struct Config {
    /// argv.
    pub args: Vec<Vec<u8>>,
    /// Environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Path of the program.
    pub exe: Vec<u8>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// Host name.
    pub hostname: Vec<u8>,
    /// vCPUs.
    pub cpus: usize,
    /// TSC frequency.
    pub tsc_khz: u64,
    /// Wall-clock time, nanoseconds.
    pub wall_ns: u64,
    /// TSC value it belongs to.
    pub wall_tsc: Option<u64>,
    /// Entropy.
    pub seed: Vec<u8>,
    /// Whether Unik's own monitor runs us.
    pub own_monitor: bool,
    /// virtio-console windows: stdio, stderr.
    pub consoles: [Option<u64>; 2],
    /// Bytes that end standard input when they appear in it; empty: the console can say so itself.
    pub input_end: Vec<u8>,
    /// Records of network cards.
    pub cards: Vec<Vec<u8>>,
    /// Port that takes many register accesses at once.
    pub batch: Option<u16>,
    /// Which standard streams are terminals.
    pub tty: [bool; 3],
    /// Columns, rows.
    pub winsize: (u16, u16),
    /// Time zone.
    pub tz: Vec<u8>,
    /// List system calls at exit.
    pub syscall_summary: bool,
    /// GSI of each announced virtio-mmio window.
    pub windows: Vec<(u64, u32)>,
}

static CONFIG: Once<Config> = Once::new();

/// The configuration.
pub fn get() -> &'static Config {
    CONFIG.call_once(Config::default)
}

/// A decimal number, or a hexadecimal one with `0x`.
pub fn number(value: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(value).ok()?;
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn hex(value: &[u8]) -> Vec<u8> {
    value
        .chunks(2)
        .filter_map(|pair| {
            core::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect()
}

impl Config {
    fn set_env(&mut self, variable: &[u8]) {
        let name_len = variable
            .iter()
            .position(|&b| b == b'=')
            .map_or(variable.len(), |at| at + 1);
        match self
            .env
            .iter_mut()
            .find(|old| old.starts_with(&variable[..name_len]))
        {
            Some(old) => *old = variable.to_vec(),
            None => self.env.push(variable.to_vec()),
        }
    }

    fn apply(&mut self, blob: &[u8]) {
        let mut first_arg = true;
        for (key, value) in unik_abi::config::records(blob) {
            match key {
                b"arg" => {
                    if core::mem::take(&mut first_arg) {
                        self.args.clear();
                    }
                    self.args.push(value.to_vec());
                }
                b"env" => self.set_env(value),
                b"exe" => self.exe = value.to_vec(),
                b"cwd" => self.cwd = value.to_vec(),
                b"hostname" => self.hostname = value.to_vec(),
                b"cpus" => self.cpus = number(value).unwrap_or(1) as usize,
                b"tsc_khz" => self.tsc_khz = number(value).unwrap_or(0),
                b"wall_ns" => self.wall_ns = number(value).unwrap_or(0),
                b"wall_tsc" => self.wall_tsc = number(value),
                b"seed" => self.seed = hex(value),
                b"monitor" => self.own_monitor = value == b"unik",
                b"console" => self.consoles[0] = number(value),
                b"console.err" => self.consoles[1] = number(value),
                b"console.eof" => self.input_end = hex(value),
                b"net" => self.cards.push(value.to_vec()),
                b"batch" => self.batch = number(value).and_then(|port| u16::try_from(port).ok()),
                b"tty" => self.tty = [b'0', b'1', b'2'].map(|stream| value.contains(&stream)),
                b"winsize" => self.set_winsize(value),
                b"tz" => self.tz = value.to_vec(),
                b"syscall_summary" => self.syscall_summary = value == b"1",
                _ => {}
            }
        }
    }

    fn set_winsize(&mut self, value: &[u8]) {
        let mut parts = value
            .split(|&b| b == b'x')
            .map(|part| number(part).unwrap_or(0) as u16);
        self.winsize = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    }

    /// Takes `virtio_mmio.device=SIZE@ADDR:GSI` words from the command line (the format of Linux's virtio_mmio driver).
    fn read_command_line(&mut self, line: &[u8]) {
        for word in line.split(|b| b.is_ascii_whitespace()) {
            let Some(device) = word.strip_prefix(b"virtio_mmio.device=") else {
                continue;
            };
            let place = device.split(|&b| b == b'@').nth(1).unwrap_or_default();
            let mut parts = place.split(|&b| b == b':').map(number);
            if let (Some(Some(address)), Some(Some(gsi))) = (parts.next(), parts.next()) {
                self.windows.push((address, gsi as u32));
            }
        }
    }
}

/// Reads manifest, module and command line, and fills what they leave open.
pub fn init(manifest: &[u8], module: &[u8], command_line: &[u8]) -> &'static Config {
    CONFIG.call_once(|| {
        let mut config = Config {
            cpus: 1,
            cwd: b"/".to_vec(),
            hostname: b"unik".to_vec(),
            ..Config::default()
        };
        config.apply(manifest);
        config.apply(module);
        config.read_command_line(command_line);
        config.cpus = config.cpus.clamp(1, unik_abi::MAX_VCPUS);
        if config.exe.is_empty() {
            config.exe = b"/bin/program".to_vec();
        }
        if config.args.is_empty() {
            config.args.push(config.exe.clone());
        }
        config
    })
}
