//! The numbers of the second page: one server-sent event.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socketserver::Stats;

use crate::room::Room;

/// How often a watcher gets an event.
pub const EVERY: Duration = Duration::from_secs(1);

/// The counters of the server and of the room, and what the process has used, as one event.
pub fn event(stats: &Stats, room: &Room) -> String {
    let (cpu_ms, memory_kib) = used();
    let numbers = [
        ("active", stats.active as u64),
        ("members", room.members() as u64),
        ("said", room.said.load(Relaxed)),
        ("delivered", room.delivered.load(Relaxed)),
        ("memory_kib", memory_kib),
        ("cpu_ms", cpu_ms),
        ("accepted", stats.accepted),
        ("served", stats.served),
        ("failed", stats.failed),
        ("disconnected", stats.disconnected),
        ("refused", stats.refused),
    ];
    let fields: Vec<String> = numbers.iter().map(|(name, n)| format!("\"{name}\":{n}")).collect();
    format!("data: {{{}}}\n\n", fields.join(","))
}

/// Processor time in milliseconds and resident memory in KiB, see proc_pid_stat(5); zeros where there is no `/proc`.
fn used() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses. It may have spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let field = |number: usize| fields.get(number - 2).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    ((field(14) + field(15)) * 10, field(24) * 4) // ticks of 10 ms, pages of 4 KiB
}
