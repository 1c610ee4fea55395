//! What a run took from the machine, as the kernel counts it for this process and the children that
//! it has reaped.

use serde::{Deserialize, Serialize};

/// What a run took; a figure that the system does not give is absent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU time in user mode, children included, in seconds.
    pub cpu_seconds_user: Option<f64>,
    /// CPU time in the kernel, children included, in seconds.
    pub cpu_seconds_system: Option<f64>,
    /// The most memory that this process had at once, children not included, in bytes.
    pub peak_rss: Option<u64>,
    /// Bytes written to disk, children included.
    pub disk_written: Option<u64>,
    /// The most bytes of temp files that there were at once.
    pub peak_temp_disk: u64,
}

impl Resources {
    /// What this process has taken so far. `peak_temp_disk` is what the run knows of its own temp
    /// files.
    pub fn taken(peak_temp_disk: u64) -> Self {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let (user, system) = cpu(&read("stat")).unzip();
        Self {
            cpu_seconds_user: user,
            cpu_seconds_system: system,
            peak_rss: field(&read("status"), "VmHWM:").map(|kib| kib * 1024),
            disk_written: field(&read("io"), "write_bytes:"),
            peak_temp_disk,
        }
    }
}

/// User and system time of `/proc/self/stat`: fields 14 to 17, the children's last
/// (<https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>).
fn cpu(stat: &str) -> Option<(f64, f64)> {
    let fields: Vec<&str> = after_name(stat)?.collect();
    #[expect(clippy::cast_precision_loss, reason = "a tick is 10 ms")]
    let seconds = |number: usize| {
        let ticks: u64 = fields.get(number - 3)?.parse().ok()?;
        Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    };
    Some((seconds(14)? + seconds(16)?, seconds(15)? + seconds(17)?))
}

/// The fields of a process's `stat` from the third on, its state: the second is the program's name
/// in parentheses, and may hold anything.
pub fn after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

/// The number after `name`, its unit left out.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_does_not_confuse_the_count() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 200 0 0 150 20 50 30 20 0 1 0 5000 0 0";
        let tick = 1.0 / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap());
        assert_eq!(cpu(stat), Some((200.0 * tick, 50.0 * tick)));
        assert_eq!(cpu("7 (a) S 1"), None);
        assert_eq!(
            field("VmPeak:\t  9 kB\nVmHWM:\t  12 kB\n", "VmHWM:"),
            Some(12)
        );
    }

    #[test]
    fn work_is_counted_with_a_reaped_childs() {
        let before = Resources::taken(0);
        let spin = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        assert!(
            std::process::Command::new("sh")
                .args(["-c", spin])
                .status()
                .unwrap()
                .success()
        );
        let after = Resources::taken(7);
        assert!(
            after.cpu_seconds_user > before.cpu_seconds_user,
            "{after:?}"
        );
        assert!(
            after.peak_rss > Some(1 << 20) && after.peak_temp_disk == 7,
            "{after:?}"
        );
    }
}
