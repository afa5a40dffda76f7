//! [`ChildSlot`]: what a child tells its parent, in memory that both see.
//!
//! A verdict and a text, so that the parent's log and hook can say what the handler's error was. An exit code
//! or a signal is left for children that die without a word. If SIGCHLD is ignored, the slot is all there is.
//!
//! A slot has a page of its own, which no other child ever has. A process that a child has left behind may still
//! write it. So slots are never used again, and the memory of [`AT_ONCE`] of them is given back when their children
//! have ended.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering::SeqCst};
use std::sync::Arc;

use crate::connection::Told;
use crate::net::Moved;
use crate::observe::GreetingFailure;
use crate::proxy::ProxyHeader;
use crate::sys::shared::{OnPages, Shareable, SharedRef};
use crate::sys::window::Apart;
use crate::sys::wishes::Wishes;
use crate::tls::TlsInfo;

/// As many slots as are mapped at once.
const AT_ONCE: usize = 16;
/// The longest text, in bytes.
const TEXT: usize = 204;
/// The longest result of a handshake, in bytes.
const TLS: usize = 2 + 3 * 255;

/// The part of one child.
#[derive(Debug)]
pub(crate) struct ChildSlot {
    /// What the child tells while it serves.
    pub(super) told: Told,
    /// Zero until the proxy's header has come, if one is expected. Then [`GREETED`], and what the header is.
    greeted: AtomicU32,
    /// The client's address, if a proxy has told it, and the one that it has connected to. Of each: the halves of
    /// the IP address, then the family (4 or 6) above the port.
    client: [AtomicU64; 3],
    destination: [AtomicU64; 3],
    /// An [`Answer`] as a number. 0: none yet.
    answer: AtomicU32,
    /// A [`Verdict`] as a number. 0: none yet.
    verdict: AtomicU32,
    /// The place of the reason in [`GreetingFailure::ALL`], for [`Verdict::NotGreeted`].
    reason: AtomicU32,
    text: Text<TEXT>,
    /// What TLS has agreed upon, as bytes.
    tls: Text<TLS>,
    pub(super) wishes: Wishes,
}

/// The parent's answer to a child whose client a proxy has named: whether the client is admitted for its source. Only the
/// parent counts sources: a child that a hostile client has taken over could cheat them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Answer {
    Admitted = 1,
    Refused = 2,
}

/// How a handler has ended, in the child's own judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Verdict {
    Served = 1,
    Failed = 2,
    TimedOut = 3,
    Disconnected = 4,
    Panicked = 5,
    /// The bounds of the process could not be set.
    Unbound = 6,
    /// `verify_request` said no.
    Refused = 7,
    /// `verify_request` did not answer in time.
    Unanswered = 8,
    /// `verify_request` panicked or could not be asked, or a factory made no protocol.
    Unasked = 9,
    /// The greeting failed.
    NotGreeted = 10,
    /// The peer has sent what cannot be served.
    AtFault = 11,
    /// The parent has refused the client for its source.
    NotAdmitted = 12,
}

impl Verdict {
    pub(crate) const ALL: [Self; 12] = [
        Self::Served,
        Self::Failed,
        Self::TimedOut,
        Self::Disconnected,
        Self::Panicked,
        Self::Unbound,
        Self::Refused,
        Self::Unanswered,
        Self::Unasked,
        Self::NotGreeted,
        Self::AtFault,
        Self::NotAdmitted,
    ];

    /// Returns the exit code of the child. The guide lists them.
    pub(crate) fn exit_code(self) -> i32 {
        // Without a look into a table: that would be a page more for each child.
        if self == Self::Served {
            return 0;
        }
        self.code_of_a_failure()
    }

    #[cold]
    #[inline(never)]
    fn code_of_a_failure(self) -> i32 {
        match self {
            Self::Served => 0,
            // As Rust programs do.
            Self::Panicked => 101,
            Self::Failed | Self::AtFault => 110,
            Self::TimedOut => 111,
            Self::Disconnected => 112,
            Self::Unbound => 113,
            Self::Refused | Self::Unanswered | Self::Unasked | Self::NotGreeted | Self::NotAdmitted => 114,
        }
    }
}

impl ChildSlot {
    pub(super) fn deadline(&self) -> Option<u64> {
        Some(self.told.deadline.load(SeqCst)).filter(|d| *d > 0)
    }

    /// Returns how much the child has moved, as it says itself.
    pub(super) fn moved(&self) -> Moved {
        Moved { read: self.told.read.load(SeqCst), written: self.told.written.load(SeqCst) }
    }

    /// Writes the child's verdict, at its end. A text that is too long is cut.
    pub(super) fn set_verdict(&self, verdict: Verdict, text: &str) {
        let mut length = text.len().min(TEXT);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        self.text.set(&text.as_bytes()[..length]);
        // Last: a child that dies within this has no verdict.
        self.verdict.store(verdict as u32, SeqCst);
    }

    /// Returns the verdict of a child that has ended, if it came to write one.
    pub(super) fn verdict(&self) -> Option<(Verdict, String)> {
        // A child may write wild. What is no verdict is none, and no length goes beyond the text.
        let number = self.verdict.load(SeqCst);
        let verdict = Verdict::ALL.into_iter().find(|v| *v as u32 == number)?;
        Some((verdict, String::from_utf8_lossy(&self.text.get()).into_owned()))
    }

    /// Writes what TLS has agreed upon.
    pub(super) fn set_tls(&self, info: &TlsInfo) {
        self.tls.set(&info.to_bytes());
    }

    /// Returns what TLS has agreed upon, without certificates.
    pub(super) fn tls(&self) -> Option<TlsInfo> {
        TlsInfo::from_bytes(&self.tls.get())
    }

    /// Writes why the greeting failed. The verdict follows.
    pub(super) fn set_reason(&self, reason: GreetingFailure) {
        self.reason.store(reason as u32, SeqCst);
    }

    /// Returns why the greeting failed.
    pub(super) fn reason(&self) -> GreetingFailure {
        let place = self.reason.load(SeqCst) as usize;
        GreetingFailure::ALL.get(place).copied().unwrap_or(GreetingFailure::System)
    }

    pub(super) fn set_answer(&self, answer: Answer) {
        self.answer.store(answer as u32, SeqCst);
    }

    /// Returns the parent's answer. `None`: it is still to come.
    pub(super) fn answer(&self) -> Option<Answer> {
        let number = self.answer.load(SeqCst);
        [Answer::Admitted, Answer::Refused].into_iter().find(|answer| *answer as u32 == number)
    }

    /// Writes what a proxy has told, once it is known, and that a client without a proxy is let on.
    pub(super) fn set_greeted(&self, header: Option<&ProxyHeader>) {
        let addresses = header.and_then(|header| Some((header.client()?, header.destination()?)));
        if let Some((client, destination)) = addresses {
            write(&self.client, client);
            write(&self.destination, destination);
        }
        let facts = header.map_or(0, |h| u32::from(h.version()) | if h.is_local() { LOCAL } else { 0 });
        // Last: the parent reads the addresses after it.
        self.greeted.store(GREETED | facts, SeqCst);
    }

    /// True once the client's address is known.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted.load(SeqCst) & GREETED != 0
    }

    /// Returns what the proxy has told, without its TLVs.
    pub(super) fn header(&self) -> Option<ProxyHeader> {
        let facts = self.greeted.load(SeqCst);
        let version = facts as u8 & 3;
        let addresses = read(&self.client).zip(read(&self.destination));
        (version > 0).then(|| ProxyHeader::relayed(version, facts & LOCAL != 0, addresses))
    }
}

/// Bytes of a length up to `N`.
#[derive(Debug)]
struct Text<const N: usize> {
    length: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Text<N> {
    fn set(&self, bytes: &[u8]) {
        self.bytes.iter().zip(bytes).for_each(|(to, from)| to.store(*from, SeqCst));
        self.length.store(bytes.len().min(N) as u32, SeqCst);
    }

    fn get(&self) -> Vec<u8> {
        let length = (self.length.load(SeqCst) as usize).min(N);
        self.bytes[..length].iter().map(|byte| byte.load(SeqCst)).collect()
    }
}

/// The client's address is known.
const GREETED: u32 = 8;
/// The proxy speaks for itself.
const LOCAL: u32 = 4;

fn write(to: &[AtomicU64; 3], addr: SocketAddr) {
    let (ip, family) = match addr {
        SocketAddr::V4(addr) => (u128::from(u32::from(*addr.ip())), 4),
        SocketAddr::V6(addr) => (u128::from(*addr.ip()), 6),
    };
    to[0].store((ip >> 64) as u64, SeqCst);
    to[1].store(ip as u64, SeqCst);
    to[2].store(family << 16 | u64::from(addr.port()), SeqCst);
}

fn read(from: &[AtomicU64; 3]) -> Option<SocketAddr> {
    let [high, low, last] = [0, 1, 2].map(|place: usize| from[place].load(SeqCst));
    let port = last as u16;
    match last >> 16 {
        4 => Some((Ipv4Addr::from(low as u32), port).into()),
        6 => Some((Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)), port).into()),
        _ => None,
    }
}

type Slots = [OnPages<ChildSlot>; AT_ONCE];

// SAFETY: plain atomics, all of them.
#[allow(unsafe_code)]
unsafe impl Shareable for ChildSlot {}

/// The slots that no child has had.
#[derive(Debug, Default)]
pub(super) struct NewSlots(Vec<SharedRef<ChildSlot>>);

impl NewSlots {
    pub(super) fn take(&mut self) -> std::io::Result<SharedRef<ChildSlot>> {
        if self.0.is_empty() {
            let slots = Arc::new(Apart::<Slots>::new()?);
            self.0.extend((0..AT_ONCE).map(|index| slots.part(|slots| &*slots[index])));
        }
        self.0.pop().ok_or_else(|| std::io::Error::other("no slot"))
    }

    /// Takes back a slot that no child has had after all.
    pub(super) fn give_back(&mut self, slot: SharedRef<ChildSlot>) {
        slot.told.deadline.store(0, SeqCst);
        self.0.push(slot);
    }
}
