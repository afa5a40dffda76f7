//! System calls without the C library, for a process that was just forked.
//!
//! A child maps the code of a program anew, 64 KiB at a time. Each such window that it enters costs a page fault. The
//! calls of the C library are spread over many. These are inlined where they are made.
//!
//! They leave `errno` alone: an error is the answer.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

use nix::libc::{self, c_long};

/// Makes a system call. A failure is a negative number, that of the error.
///
/// # Safety
/// As section 2 of the manual has it for this call.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn call(number: c_long, args: [usize; 6]) -> isize {
    let answer: isize;
    let [a, b, c, d, e, f] = args;
    // SAFETY: the kernel changes rax, rcx and r11 only. What the call itself does is the caller's promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// As on x86-64.
///
/// # Safety
/// As section 2 of the manual has it for this call.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn call(number: c_long, args: [usize; 6]) -> isize {
    let answer: isize;
    let [a, b, c, d, e, f] = args;
    // SAFETY: the kernel changes x0 only. What the call itself does is the caller's promise.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => answer,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    answer
}

/// On other processors by the C library.
///
/// # Safety
/// As section 2 of the manual has it for this call.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn call(number: c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller's promise.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer == -1 {
        -(nix::errno::Errno::last_raw() as isize)
    } else {
        answer as isize
    }
}

#[inline(always)]
pub(super) fn answer(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::from_raw_os_error(-answer as i32))
}

/// Sends once (send(2)).
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn send(fd: RawFd, bytes: &[u8], flags: i32) -> io::Result<usize> {
    Ok(nix::sys::socket::send(fd, bytes, nix::sys::socket::MsgFlags::from_bits_retain(flags))?)
}

/// Sends once (send(2)).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(super) fn send(fd: RawFd, bytes: &[u8], flags: i32) -> io::Result<usize> {
    let args = [fd as usize, bytes.as_ptr() as usize, bytes.len(), flags as usize, 0, 0];
    // SAFETY: the kernel reads these bytes only.
    answer(unsafe { call(libc::SYS_sendto, args) })
}

/// Asks for a number (`FIONREAD` and the like).
#[inline(always)]
pub(super) fn ask(fd: RawFd, question: libc::Ioctl) -> io::Result<usize> {
    let mut number: libc::c_int = 0;
    let args = [fd as usize, question as usize, std::ptr::addr_of_mut!(number) as usize, 0, 0, 0];
    // SAFETY: the callers' questions write one c_int through the pointer, which is valid for the call.
    answer(unsafe { call(libc::SYS_ioctl, args) })?;
    Ok(usize::try_from(number).unwrap_or(0))
}

/// Closes these numbers, from the first to the last.
///
/// # Safety
/// These descriptors are used no more in this process.
#[inline(always)]
pub(super) unsafe fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: three integers; the rest is the caller's promise.
    answer(unsafe { call(libc::SYS_close_range, [first as usize, last as usize, 0, 0, 0, 0]) }).map(drop)
}

/// Closes a descriptor.
#[inline(always)]
pub(crate) fn close(fd: OwnedFd) {
    // SAFETY: the descriptor was owned, and nobody owns it any more.
    unsafe { call(libc::SYS_close, [fd.into_raw_fd() as usize, 0, 0, 0, 0, 0]) };
}

/// Lets all signals through to this thread.
#[inline(always)]
pub(super) fn unblock_signals() {
    let none = 0_u64;
    let args = [libc::SIG_SETMASK as usize, std::ptr::addr_of!(none) as usize, 0, 8, 0, 0];
    // SAFETY: the kernel reads the eight bytes of its own set of signals.
    unsafe { call(libc::SYS_rt_sigprocmask, args) };
}

/// Ends the process at once (`_exit`).
#[inline(always)]
pub(super) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: may be called at any time, and does not return.
        unsafe { call(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

/// How a signal is answered, as the kernel has it (`struct sigaction` of rt_sigaction(2)).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Answer {
    function: usize,
    flags: usize,
    /// Where a handler returns to: code of the C library.
    restorer: usize,
    mask: u64,
}

/// How a signal is answered.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer(libc::sigaction);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Answer {
    const SA_RESTORER: usize = 0x0400_0000;

    /// Returns the answer by a handler. The way back from it is that of the C library, as this signal gets it here,
    /// whose answer stays.
    pub(super) fn by(signal: i32, function: usize, flags: i32) -> Self {
        let (mut same, mut now) = (std::mem::MaybeUninit::<libc::sigaction>::uninit(), Self::default());
        let args = [signal as usize, 0, std::ptr::addr_of_mut!(now) as usize, 8, 0, 0];
        // SAFETY: the first call writes the present answer, and the second one sets it again. The kernel writes one
        // struct of its own, which is valid for the call.
        unsafe {
            if libc::sigaction(signal, std::ptr::null(), same.as_mut_ptr()) == 0 {
                libc::sigaction(signal, same.as_ptr(), std::ptr::null_mut());
            }
            call(libc::SYS_rt_sigaction, args);
        }
        Self { function, flags: now.flags & Self::SA_RESTORER | flags as usize, mask: 0, ..now }
    }

    /// Answers the signal like this.
    ///
    /// # Safety
    /// The function is async-signal-safe, or SIG_DFL or SIG_IGN.
    #[inline(always)]
    pub(super) unsafe fn set(&self, signal: i32) {
        let args = [signal as usize, std::ptr::from_ref(self) as usize, 0, 8, 0, 0];
        // SAFETY: the kernel reads one such struct. The function is the caller's promise.
        unsafe { call(libc::SYS_rt_sigaction, args) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl Answer {
    pub(super) fn by(_: i32, function: usize, flags: i32) -> Self {
        let mut new = Self::default();
        new.0.sa_sigaction = function;
        new.0.sa_flags = flags;
        new
    }

    /// # Safety
    /// The function is async-signal-safe, or SIG_DFL or SIG_IGN.
    pub(super) unsafe fn set(&self, signal: i32) {
        // SAFETY: sigaction reads one struct. The function is the caller's promise.
        unsafe { libc::sigaction(signal, std::ptr::addr_of!(self.0), std::ptr::null_mut()) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl Default for Answer {
    fn default() -> Self {
        // SAFETY: sigaction is plain integers, for which all zeroes is a value: SIG_DFL.
        Self(unsafe { std::mem::zeroed() })
    }
}
