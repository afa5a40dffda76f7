use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::{Registry, SlotState};
use SlotState::{Busy, Cut, Idle};

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

/// True if a read of this socket would wait.
fn is_open(socket: &mut UnixStream) -> bool {
    socket.read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
}

#[test]
fn only_idle_readers_are_woken() {
    let registry = Registry::default();
    let ((mut idle, _a), (mut busy, _b)) = (pair(), pair());
    let (at_idle, at_busy) = (registry.enter(idle.as_raw_fd()), registry.enter(busy.as_raw_fd()));
    assert!(at_idle.turn(Busy, Idle));
    registry.wake(SlotState::Idle);
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    assert!(is_open(&mut busy));
    assert!(!at_idle.turn(Idle, Busy), "it learns that its reading side was cut");
    assert!(at_busy.turn(Busy, Idle));
    idle.write_all(b"it can still answer").unwrap();
}

#[test]
fn a_turn_needs_the_state_it_turns_from() {
    let registry = Registry::default();
    let (socket, _peer) = pair();
    let slot = registry.enter(socket.as_raw_fd());
    assert!(!slot.turn(Idle, Busy));
    assert!(slot.turn(Busy, Idle));
    assert!(!slot.turn(Busy, Idle));
    assert!(slot.turn(Idle, Cut));
    assert!(!slot.turn(Idle, Busy));
}

#[test]
fn a_cut_ends_all_in_both_directions() {
    let registry = Registry::default();
    let (mut ours, mut theirs) = pair();
    let _slot = registry.enter(ours.as_raw_fd());
    assert_eq!(registry.cut_all(), 1);
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_connection_that_has_left_is_not_cut_and_its_slot_is_used_again() {
    let registry = Registry::default();
    let (mut first, _a) = pair();
    let slot = registry.enter(first.as_raw_fd());
    assert!(slot.turn(Busy, Idle));
    let place = Arc::as_ptr(&slot);
    registry.leave(slot);
    registry.wake(SlotState::Idle);
    assert_eq!(registry.cut_all(), 0);
    assert!(is_open(&mut first));
    let (mut second, _b) = pair();
    let slot = registry.enter(second.as_raw_fd());
    assert_eq!(Arc::as_ptr(&slot), place);
    registry.wake(SlotState::Idle);
    assert!(is_open(&mut second), "it begins busy");
}
