//! Names of signals and exceptions for reports.

/// Name and meaning of a standard signal (signal(7)).
pub fn signal(number: u8) -> (String, &'static str) {
    const NAMES: [(&str, &str); 31] = [
        ("SIGHUP", "hang-up"),
        ("SIGINT", "interrupt"),
        ("SIGQUIT", "quit"),
        ("SIGILL", "illegal instruction"),
        ("SIGTRAP", "breakpoint"),
        ("SIGABRT", "abort"),
        ("SIGBUS", "bus error"),
        ("SIGFPE", "arithmetic exception"),
        ("SIGKILL", "kill"),
        ("SIGUSR1", "user-defined signal 1"),
        ("SIGSEGV", "invalid memory reference"),
        ("SIGUSR2", "user-defined signal 2"),
        ("SIGPIPE", "nobody reads"),
        ("SIGALRM", "alarm"),
        ("SIGTERM", "termination"),
        ("SIGSTKFLT", "stack fault"),
        ("SIGCHLD", "child ended"),
        ("SIGCONT", "continue"),
        ("SIGSTOP", "stop"),
        ("SIGTSTP", "stop from the terminal"),
        ("SIGTTIN", "background read"),
        ("SIGTTOU", "background write"),
        ("SIGURG", "urgent data"),
        ("SIGXCPU", "CPU time limit"),
        ("SIGXFSZ", "file size limit"),
        ("SIGVTALRM", "virtual alarm"),
        ("SIGPROF", "profiling alarm"),
        ("SIGWINCH", "window size"),
        ("SIGIO", "input or output possible"),
        ("SIGPWR", "power failure"),
        ("SIGSYS", "bad system call"),
    ];
    match NAMES.get(usize::from(number).wrapping_sub(1)) {
        Some(&(name, meaning)) => (name.to_owned(), meaning),
        None => (format!("signal {number}"), "real-time signal"),
    }
}

/// Name of an exception vector (Intel SDM volume 3, table 6-1).
pub fn exception(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD error",
        _ => "exception",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        let names = [1, 11, 15, 31].map(|n| signal(n).0);
        assert_eq!(names, ["SIGHUP", "SIGSEGV", "SIGTERM", "SIGSYS"]);
        assert_eq!(signal(64).0, "signal 64");
        assert_eq!(signal(0).0, "signal 0");
    }
}
