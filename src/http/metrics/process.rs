//! This process, as the system sees it.

use std::fs;

/// Clock ticks in a second, as the kernel counts them in `/proc` (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures from `/proc`; `None` where it is missing.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    /// Since 1970.
    pub(super) start_seconds: Option<f64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        let kilobytes = |name| number_after(&status, name).map(|it| it * 1024);
        let boot = number_after(&system, "btime ");
        let start = ticks(&stat, 22);
        Self {
            resident_bytes: kilobytes("VmRSS:"),
            virtual_bytes: kilobytes("VmSize:"),
            threads: number_after(&status, "Threads:"),
            // Without the descriptor that reads the folder.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|it| (it.count() as u64).saturating_sub(1)),
            max_fds: number_after(&limits, "Max open files"),
            cpu_seconds: ticks(&stat, 14)
                .zip(ticks(&stat, 15))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            start_seconds: boot
                .zip(start)
                .map(|(boot, start)| boot as f64 + start / TICKS_PER_SECOND),
        }
    }
}

/// Returns the first number of the line that begins with `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Returns a field of `/proc/self/stat`, numbered as in proc(5).
fn ticks(stat: &str, field: usize) -> Option<f64> {
    // The second field is a name in brackets, which may contain spaces and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(field - 3)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_all_figures() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|it| it > 100_000));
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.threads.is_some_and(|it| it > 0));
        assert!(process.open_fds.is_some_and(|it| it >= 3));
        assert!(process.max_fds.is_some());
        assert!(process.cpu_seconds.is_some());
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        let started = process.start_seconds.unwrap();
        let age = now.as_secs_f64() - started;
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }

    #[test]
    fn process_name_with_brackets_and_spaces_is_skipped() {
        let stat = "1 (a) b) S 2 3 4 5 6 7 8 9 10 11 120 130 16";
        assert_eq!(ticks(stat, 14), Some(120.0));
        assert_eq!(ticks(stat, 15), Some(130.0));
    }
}
