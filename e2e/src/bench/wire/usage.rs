//! What a process has cost so far, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// CPU seconds of the process and all its threads, also ended ones; counted in steps of 10 ms.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("read the process's stat")?;
    cpu_ticks(&text, 2).map(|ticks| ticks as f64 / TICKS_PER_SECOND)
}

/// CPU seconds of this process and of its children that have ended.
pub(super) fn family_cpu_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat").context("read the own stat")?;
    cpu_ticks(&text, 4).map(|ticks| ticks as f64 / TICKS_PER_SECOND)
}

/// CPU seconds that all processors of the machine together have spent at work since it booted (proc(5), `/proc/stat`).
pub(super) fn machine_cpu_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    machine_ticks(&text).map(|ticks| ticks as f64 / TICKS_PER_SECOND)
}

/// Resident memory, MiB.
pub(super) fn resident_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmRSS:")
}

/// The most memory that was resident since [`forget_peak`], MiB.
pub(super) fn peak_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmHWM:")
}

/// Begins a new peak (proc(5), `clear_refs`, value 5).
pub(super) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("reset the process's memory peak")
}

fn status_mib(pid: u32, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read the process's status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).context("memory of the process")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{field} {line}"))?;
    Ok(kib / 1024.0)
}

/// utime and stime, then those of ended children, fields 14 to 17; the name in field 2 may hold anything
/// (proc_pid_stat(5)).
fn cpu_ticks(stat: &str, fields: usize) -> Result<u64> {
    let (_, after_name) = stat.rsplit_once(") ").context("no name in stat")?;
    let ticks = after_name.split(' ').skip(11).take(fields).map(str::parse::<u64>);
    ticks.sum::<Result<u64, _>>().with_context(|| format!("times in {stat:?}"))
}

/// The first line: user, nice, system, idle, iowait, irq, softirq. All but idle and iowait.
fn machine_ticks(stat: &str) -> Result<u64> {
    let line =
        stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no line for all CPUs")?;
    let times =
        line.split_ascii_whitespace().take(7).enumerate().filter(|(field, _)| !matches!(field, 3 | 4));
    times
        .map(|(_, ticks)| ticks.parse::<u64>())
        .sum::<Result<u64, _>>()
        .with_context(|| format!("times in {line:?}"))
}

/// USER_HZ: what the kernel shows user space, whatever its own tick is (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_bracket_does_not_shift_the_fields() {
        let stat = "7 (a) 1) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 7 1 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat, 2).expect("sound"), 42);
        assert_eq!(cpu_ticks(stat, 4).expect("sound"), 50);
        assert!(cpu_ticks("7 (a", 2).is_err());
    }

    #[test]
    fn idle_time_is_no_work() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(machine_ticks(stat).expect("sound"), 31);
        assert!(machine_cpu_seconds().expect("this machine") > 0.0);
    }

    #[test]
    fn reads_the_own_process() {
        let pid = std::process::id();
        let resident = resident_mib(pid).expect("own memory");
        assert!(resident > 0.5 && resident <= peak_mib(pid).expect("own peak") + 1.0, "{resident} MiB");
        cpu_seconds(pid).expect("own time");
    }
}
