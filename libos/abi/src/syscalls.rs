//! The one table of Linux system calls (x86-64 numbers).
