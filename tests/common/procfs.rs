//! What Linux tells of a process: shared by tests and benchmarks.
#![allow(dead_code, reason = "every test binary and benchmark uses its part")]

use std::fmt::Display;
use std::time::Duration;

/// Time on a CPU so far, user and system, of the threads that run; to the nanosecond.
pub(crate) fn cpu(process: impl Display) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let nanos = tasks.flatten().map(|task| {
        // A thread may have ended since it was listed.
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next();
        first.and_then(|it| it.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanos.sum())
}

/// As [`cpu`], of threads that have ended too; to 10 ms.
pub(crate) fn cpu_of_all(process: impl Display) -> Duration {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(path).expect("the process runs");
    // Behind the name, which may hold anything.
    let numbers = text.rsplit(')').next().unwrap_or_default();
    let ticks = numbers.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|it| it.parse::<u64>().ok()).sum();
    // USER_HZ is 100 wherever Linux runs today.
    Duration::from_millis(ticks * 10)
}

/// Bytes of memory: a field of `status` (proc_pid_status(5)), as `VmRSS` or `VmHWM`.
pub(crate) fn memory(process: impl Display, field: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(path).expect("the process runs");
    let line = text.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: u64 = number.and_then(|it| it.parse().ok()).expect("a size");
    kib * 1024
}

/// Open descriptors.
pub(crate) fn descriptors(process: impl Display) -> usize {
    let folder = format!("/proc/{process}/fd");
    std::fs::read_dir(folder).expect("the process runs").count()
}
