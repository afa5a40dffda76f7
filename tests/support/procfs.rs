//! What the kernel tells about a server: its descriptors, threads and children.

use std::fs;

/// Open descriptors.
pub fn fds(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// All that descend from this process, not the process itself.
pub fn descendants(pid: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = pids().filter_map(|p| Some((p, stat(p)?.parent))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(all.iter().filter(|(_, its)| *its == parent).map(|(p, _)| *p));
        next += 1;
    }
    found.split_off(1)
}

/// Descendants that have died and were not reaped.
pub fn zombies(pid: u32) -> usize {
    descendants(pid).into_iter().filter_map(stat).filter(|s| s.state == 'Z').count()
}

/// Processor time that it and its descendants have used, in the kernel's ticks.
pub fn ticks(pid: u32) -> u64 {
    descendants(pid).into_iter().chain([pid]).filter_map(stat).map(|s| s.ticks).sum()
}

/// The state of a process, as `ps` shows it; `None` where there is no such process.
pub fn state(pid: u32) -> Option<char> {
    stat(pid).map(|s| s.state)
}

/// Memory that is resident, in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Whether a tracer is attached.
pub fn traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

/// Each descriptor, with what it is open on; sockets and pipes without their number.
pub fn fd_kinds(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let kind = |entry: fs::DirEntry| {
        let fd = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        let kind = target.strip_suffix(']').and_then(|t| t.split_once(":[")).filter(|(k, _)| *k != "anon_inode");
        Some((fd, kind.map_or(target.clone(), |(k, _)| k.to_owned())))
    };
    entries.filter_map(kind).collect()
}

/// The flags with which a descriptor of it is open, `O_NONBLOCK` among them.
pub fn open_flags(pid: u32, fd: u32) -> u32 {
    u32::from_str_radix(&fdinfo(pid, fd, "flags:"), 8).unwrap()
}

/// How far a file has been read.
pub fn position(pid: u32, fd: u32) -> u64 {
    fdinfo(pid, fd, "pos:").parse().unwrap()
}

fn fdinfo(pid: u32, fd: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
}

/// Whether a signal waits to be delivered to the process.
pub fn signals_pending(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    pending.is_some_and(|mask| mask.trim().chars().any(|c| c != '0'))
}

/// Whether the process has a handler for this signal.
pub fn catches(pid: u32, signal: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map_or("0", str::trim);
    u64::from_str_radix(mask, 16).unwrap() & 1 << (signal - 1) != 0
}

struct Stat {
    state: char,
    parent: u32,
    ticks: u64,
}

/// All processes of this machine.
pub fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?; // the name before may contain anything
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    let state = fields.first()?.chars().next()?;
    Some(Stat { state, parent: u32::try_from(number(1)?).ok()?, ticks: number(11)? + number(12)? })
}

/// The page faults of a process so far, and those of its children that have ended (`minflt` and `cminflt` of proc(5)).
pub fn faults(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    (fields[8].parse().unwrap(), fields[9].parse().unwrap())
}

/// How often the threads of a process and of its descendants have waited so far. Each wait ends with a wake-up.
pub fn waits(pid: u32) -> u64 {
    let tasks = |pid: u32| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waits = |task: fs::DirEntry| -> Option<u64> {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse().ok()
    };
    descendants(pid).into_iter().chain([pid]).flat_map(tasks).filter_map(waits).sum()
}
