//! How much memory the process may have.

use std::fs;
use std::path::{Path, PathBuf};

/// The part of it that a server's account has by default: the allocator's own needs, the
/// kernel's buffers of thousands of sockets and everything else come out of the rest.
const SHARE: usize = 2;

/// Returns the limit of the account where none is configured.
pub(super) fn default_limit() -> usize {
    available(Path::new("/")) / SHARE
}

/// Returns the smallest limit of the system that is seen below `root`: physical memory, control
/// groups (cgroups(7), both versions) and resource limits (getrlimit(2)).
fn available(root: &Path) -> usize {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let physical = field(&read("proc/meminfo"), "MemTotal:").map(|it| it.saturating_mul(1024));
    let limits = read("proc/self/limits");
    let space = field(&limits, "Max address space");
    let data = field(&limits, "Max data size");
    let groups = read("proc/self/cgroup");
    let groups = groups.lines().filter_map(|line| group(root, line));
    let all = [physical, space, data].into_iter().flatten().chain(groups);
    // Without /proc nothing is known, and nothing is limited.
    all.min().unwrap_or(usize::MAX)
}

/// The number behind a name that begins a line; `None` if there is none, as for `unlimited`.
fn field(text: &str, name: &str) -> Option<usize> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The limit of the control group of a line of /proc/self/cgroup, or of one above it.
fn group(root: &Path, line: &str) -> Option<usize> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|it| it == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let mount = root.join(mount);
    let own: PathBuf = mount.join(path.trim_start_matches('/'));
    // A container often sees its own group as the root of the mount.
    let folders = own.ancestors().take_while(|it| it.starts_with(&mount));
    let limit = |folder: &Path| {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        text.trim().parse().ok()
    };
    folders.filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with some files, removed at the end.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("rustbond-memory-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:    8000 kB\nMemFree: 1 kB\n");

    #[test]
    fn smallest_limit_of_the_system_counts() {
        let physical = Root::new("physical", &[MEMINFO]);
        assert_eq!(available(&physical.0), 8000 * 1024);
        let limited = "Limit  Soft Limit  Hard Limit  Units\n\
                       Max data size  unlimited  unlimited  bytes\n\
                       Max address space  3000000  unlimited  bytes\n";
        let limited = Root::new("limited", &[MEMINFO, ("proc/self/limits", limited)]);
        assert_eq!(available(&limited.0), 3_000_000);
        let second = Root::new(
            "second",
            &[
                MEMINFO,
                ("proc/self/cgroup", "0::/system.slice/a.service\n"),
                ("sys/fs/cgroup/system.slice/a.service/memory.max", "max\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "2000000\n"),
            ],
        );
        assert_eq!(available(&second.0), 2_000_000);
        let first = Root::new(
            "first",
            &[
                MEMINFO,
                ("proc/self/cgroup", "5:cpu:/x\n4:memory:/x\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n"),
            ],
        );
        assert_eq!(available(&first.0), 1_000_000);
        let nothing = Root::new("nothing", &[("empty", "")]);
        assert_eq!(available(&nothing.0), usize::MAX);
    }
}
