//! Plain servers: as little as will do, and no limit, no timeout, no stop, no count.

use std::io::{ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{accept4, listen, setsockopt, sockopt, Backlog, SockFlag};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{fork, ForkResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::load::GREETING;

/// What a server does with a connection.
#[derive(Clone, Copy)]
struct Mode {
    greets: bool,
    buffer: usize,
}

/// Serves until a signal ends the process. False if there is no such server.
pub fn serve(name: &str, mode: &str) -> bool {
    let mode = Mode { greets: mode == "greet", buffer: if mode == "bulk" { 65536 } else { 8192 } };
    let serve: fn(TcpListener, Mode) = match name {
        "thread::spawn" => by_threads,
        "pool of accepts" => by_pool_of_accepts,
        "crate threadpool" => by_threadpool,
        "fork" => by_fork,
        "epoll" => by_epoll,
        "epoll, oneshot, 4 threads" => by_oneshot,
        "tokio" => by_tokio,
        "tokio, 2 threads" => by_tokio_threads,
        _ => return false,
    };
    let listener = bind();
    println!("{}", listener.local_addr().unwrap());
    serve(listener, mode);
    true
}

/// With the queue and the option that the crate's servers have. Accepted sockets inherit the option.
pub fn bind() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&listener, Backlog::new(4096).unwrap()).unwrap();
    setsockopt(&listener, sockopt::TcpNoDelay, &true).unwrap();
    listener
}

fn by_threads(listener: TcpListener, mode: Mode) {
    listener.incoming().flatten().for_each(|stream| drop(thread::spawn(move || talk(stream, mode))));
}

fn by_pool_of_accepts(listener: TcpListener, mode: Mode) {
    let work = || listener.incoming().flatten().for_each(|stream| talk(stream, mode));
    thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(work))));
}

fn by_threadpool(listener: TcpListener, mode: Mode) {
    let pool = threadpool::ThreadPool::new(16);
    listener.incoming().flatten().for_each(|stream| pool.execute(move || talk(stream, mode)));
}

/// As in a textbook of C.
fn by_fork(listener: TcpListener, mode: Mode) {
    for stream in listener.incoming().flatten() {
        // SAFETY: this process has one thread.
        if let ForkResult::Child = unsafe { fork() }.unwrap() {
            drop(listener);
            talk(stream, mode);
            // SAFETY: it may be called at any time.
            unsafe { nix::libc::_exit(0) };
        }
        drop(stream);
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
    }
}

fn talk(mut stream: TcpStream, mode: Mode) {
    if mode.greets {
        let _ = stream.write_all(GREETING.as_bytes());
        return;
    }
    let mut buffer = vec![0; mode.buffer];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}

/// A connection, with what the kernel has not taken yet.
struct Conn {
    stream: TcpStream,
    unsent: Vec<u8>,
}

/// One thread, edge-triggered.
fn by_epoll(listener: TcpListener, mode: Mode) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    listener.set_nonblocking(true).unwrap();
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)).unwrap();
    let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    let (mut events, mut buffer) = ([EpollEvent::empty(); 512], vec![0; mode.buffer]);
    let mut conns: Vec<Option<Conn>> = Vec::new();
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE).unwrap();
        for event in &events[..count] {
            let fd = event.data() as usize;
            if fd == 0 {
                while let Some(mut stream) = accept(&listener) {
                    if mode.greets {
                        let _ = stream.write_all(GREETING.as_bytes());
                        continue;
                    }
                    let fd = stream.as_raw_fd() as usize;
                    epoll.add(&stream, EpollEvent::new(interest, fd as u64)).unwrap();
                    conns.resize_with(conns.len().max(fd + 1), || None);
                    conns[fd] = Some(Conn { stream, unsent: Vec::new() });
                }
                continue;
            }
            let ended = event.events().intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
            if conns[fd].as_mut().is_some_and(|conn| pump(conn, &mut buffer, ended).is_err()) {
                conns[fd] = None;
            }
        }
    }
}

fn accept(listener: &TcpListener) -> Option<TcpStream> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).ok()?;
    // SAFETY: a new descriptor, which nobody else has.
    Some(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Sends and reads what can be now; an error at the end of the connection. A read of less than the buffer has read all
/// there is, unless the peer has ended.
fn pump(conn: &mut Conn, buffer: &mut [u8], ended: bool) -> Result<(), ErrorKind> {
    let now = |done: std::io::Result<usize>| match done {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        done => done.map(Some).map_err(|e| e.kind()),
    };
    loop {
        while !conn.unsent.is_empty() {
            let Some(sent) = now(conn.stream.write(&conn.unsent))? else { return Ok(()) };
            conn.unsent.drain(..sent);
        }
        let Some(n) = now(conn.stream.read(buffer))? else { return Ok(()) };
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof);
        }
        let sent = now(conn.stream.write(&buffer[..n]))?.unwrap_or(0);
        conn.unsent.extend_from_slice(&buffer[sent..n]);
        if n < buffer.len() && conn.unsent.is_empty() && !ended {
            return Ok(());
        }
    }
}

/// Four threads on one epoll, which tells each message to one of them. The main thread accepts.
fn by_oneshot(listener: TcpListener, mode: Mode) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let armed = |fd| EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, fd as u64);
    let work = || {
        let (mut events, mut buffer) = ([EpollEvent::empty()], vec![0; mode.buffer]);
        loop {
            epoll.wait(&mut events, EpollTimeout::NONE).unwrap();
            let fd = events[0].data() as i32;
            // SAFETY: the main thread has left it to this one, and it stays open as long as it is armed.
            let mut stream = ManuallyDrop::new(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }));
            let n = stream.read(&mut buffer).unwrap_or(0);
            if n > 0 && stream.write_all(&buffer[..n]).is_ok() {
                epoll.modify(&*stream, &mut armed(fd)).unwrap();
            } else {
                drop(ManuallyDrop::into_inner(stream));
            }
        }
    };
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(work)));
        for stream in listener.incoming().flatten() {
            let stream = ManuallyDrop::new(stream);
            epoll.add(&*stream, armed(stream.as_raw_fd())).unwrap();
        }
    });
}

fn by_tokio(listener: TcpListener, mode: Mode) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(tasks(listener, mode));
}

fn by_tokio_threads(listener: TcpListener, mode: Mode) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build().unwrap();
    runtime.block_on(tasks(listener, mode));
}

async fn tasks(listener: TcpListener, mode: Mode) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            if mode.greets {
                let _ = stream.write_all(GREETING.as_bytes()).await;
                return;
            }
            let mut buffer = vec![0; mode.buffer];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
            }
        });
    }
}
