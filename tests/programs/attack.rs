//! What a hostile client does that has taken a forked process over: it writes all memory that it shares.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::sys::mman::{mprotect, ProtFlags};

/// The mappings that this process shares with others.
struct Mapping {
    start: usize,
    length: usize,
    is_writable: bool,
}

fn shared_mappings() -> Vec<Mapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let shared = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|access| access.ends_with('s')));
    let read = |line: &str| {
        let (range, access) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
        Mapping { start, length: end - start, is_writable: access.as_bytes()[1] == b'w' }
    };
    shared.map(read).collect()
}

/// Tries to make all of it writable, and says how many pages were so before, and how many mappings became so.
pub fn open_all() -> String {
    let (mut own, mut opened) = (0, 0);
    for mapping in shared_mappings() {
        own += usize::from(mapping.is_writable) * mapping.length.div_ceil(4096);
        let start = NonNull::new(mapping.start as *mut c_void).unwrap();
        // SAFETY: more rights harm only the process that uses them.
        let done = unsafe { mprotect(start, mapping.length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) };
        opened += usize::from(done.is_ok() && !mapping.is_writable);
    }
    format!("{own} own, {opened} opened")
}

/// Sets all bits of what can be written: numbers and states that no honest process writes.
pub fn write_all() {
    for mapping in shared_mappings().iter().filter(|mapping| mapping.is_writable) {
        // SAFETY: it is mapped for writing. What it does to this process is the attacker's affair.
        unsafe { std::ptr::write_bytes(mapping.start as *mut u8, 0xFF, mapping.length) };
    }
}
