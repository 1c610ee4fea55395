//! How much memory there is: what the machine has, or less where a container or a service is
//! limited.
//!
//! A process that takes more than its control group may have is killed, in the middle of a dump
//! and without a word, so the limit of the group counts and those of all groups around it, of
//! either version (<https://docs.kernel.org/admin-guide/cgroup-v2.html>, `memory.max` and
//! `memory.high`; <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>). That a group may
//! have less than all of the processors is known to the standard library.

use std::fs;
use std::path::Path;

/// The memory that this process can have, in bytes; `None` where the system does not say.
pub fn limit() -> Option<u64> {
    limit_of(Path::new("/"))
}

/// The same, of a system whose files are below `root`.
fn limit_of(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let groups = read("proc/self/cgroup");
    let limits = groups
        .lines()
        .flat_map(|line| limits_of_group(root, line))
        .min();
    let meminfo = read("proc/meminfo");
    let machine = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok()?.checked_mul(1024)
    });
    limits.into_iter().chain(machine).min()
}

/// The limits of a group, and of all around it. `line` is `ID:CONTROLLERS:PATH`, and version 2 has
/// no controllers there.
fn limits_of_group(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mounts, files): (&[&str], &[&str]) = if controllers.is_empty() {
        let mounts = &["sys/fs/cgroup", "sys/fs/cgroup/unified"];
        (mounts, &["memory.max", "memory.high"])
    } else if controllers.split(',').any(|one| one == "memory") {
        (&["sys/fs/cgroup/memory"], &["memory.limit_in_bytes"])
    } else {
        return Vec::new();
    };
    let mut limits = Vec::new();
    for mount in mounts {
        let mount = root.join(mount);
        // In a container the path may be the host's, of which nothing but the group itself is to be
        // seen, at the root; so what is not there is passed over.
        for group in mount.join(path.trim_start_matches('/')).ancestors() {
            if !group.starts_with(&mount) {
                break;
            }
            let number = |file: &&str| {
                let text = fs::read_to_string(group.join(file)).ok()?;
                // "max" is no limit.
                text.trim().parse::<u64>().ok()
            };
            limits.extend(files.iter().filter_map(number));
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A system with these files.
    fn limit_with(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_of(root.path())
    }

    const MACHINE: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:        1048576 kB\nMemFree: 1 kB\n",
    );

    #[test]
    fn the_least_limit_of_a_group_and_of_those_around_it_counts() {
        let group = ("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(limit_with(&[]), None);
        assert_eq!(limit_with(&[MACHINE]), Some(1024 * MIB));
        let free = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(limit_with(&[MACHINE, group, free]), Some(1024 * MIB));
        let own = ("sys/fs/cgroup/a/b/memory.max", "134217728\n");
        assert_eq!(limit_with(&[MACHINE, group, own]), Some(128 * MIB));
        let around = ("sys/fs/cgroup/a/memory.max", "67108864\n");
        assert_eq!(limit_with(&[MACHINE, group, own, around]), Some(64 * MIB));
        let slowed = ("sys/fs/cgroup/a/b/memory.high", "33554432\n");
        assert_eq!(limit_with(&[MACHINE, group, own, slowed]), Some(32 * MIB));
        let larger = ("sys/fs/cgroup/a/b/memory.max", "9999999999999\n");
        assert_eq!(limit_with(&[MACHINE, group, larger]), Some(1024 * MIB));
    }

    #[test]
    fn version_1_and_both_at_once_and_a_hosts_path_in_a_container_are_understood() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/docker/x\n1:cpu:/\n0::/docker/x\n";
        let group = ("proc/self/cgroup", groups);
        let none = (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(limit_with(&[MACHINE, group, none]), Some(1024 * MIB));
        let own = (
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
            "67108864\n",
        );
        assert_eq!(limit_with(&[MACHINE, group, none, own]), Some(64 * MIB));
        let at_root = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n");
        assert_eq!(limit_with(&[MACHINE, group, at_root]), Some(64 * MIB));
        let hybrid = ("sys/fs/cgroup/unified/docker/memory.max", "33554432\n");
        assert_eq!(limit_with(&[MACHINE, group, own, hybrid]), Some(32 * MIB));
        let outside = ("proc/self/cgroup", "0::/../other\n");
        let own = ("sys/fs/cgroup/memory.max", "67108864\n");
        assert_eq!(limit_with(&[MACHINE, outside, own]), Some(64 * MIB));
    }

    #[test]
    fn this_machine_says_what_it_has() {
        assert!(limit().is_some_and(|limit| limit > MIB));
    }
}
