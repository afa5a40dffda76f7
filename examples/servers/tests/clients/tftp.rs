//! `tftp` of tftp-hpa, and a client that loses packets.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use crate::start;
use crate::support::{output, tool, uninterrupted, until, Server, AT_ONCE, LIMIT};

/// A folder with files whose names are their lengths.
fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tftp.{test}"));
    std::fs::create_dir_all(&folder).unwrap();
    for len in [0, 1, 511, 512, 1024, 100_000] {
        let bytes: Vec<u8> = (0..len).map(|n: u32| (n % 251) as u8).collect();
        std::fs::write(folder.join(len.to_string()), bytes).unwrap();
    }
    folder
}

#[test]
fn tftp_fetches_files_of_any_length() {
    let folder = folder("fetch");
    let mut server = start!("tftp", "--folder", folder.to_str().unwrap());
    for name in ["0", "1", "511", "512", "1024", "100000"] {
        let Some(mut command) = tool("tftp") else { return };
        let copy = folder.join("copy");
        let _ = std::fs::remove_file(&copy);
        command.args([
            "-m",
            "octet",
            "127.0.0.1",
            &server.port().to_string(),
            "-c",
            "get",
            name,
            copy.to_str().unwrap(),
        ]);
        let said = output(command.spawn().unwrap(), "tftp");
        assert!(said.status.success(), "{said:?}");
        assert!(std::fs::read(copy).unwrap() == std::fs::read(folder.join(name)).unwrap(), "{name}");
    }
    server.term().well_within(AT_ONCE);
}

fn client(port: u16) -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    (socket, format!("127.0.0.1:{port}"))
}

/// Asks for a file of 1024 bytes. Returns the socket, and where the answer comes from.
fn begin(server: &Server, packet: &mut [u8]) -> (UdpSocket, SocketAddr) {
    let (socket, to) = client(server.port());
    socket.send_to(b"\0\x011024\0octet\0", &to).unwrap();
    let (len, transfer) = uninterrupted(|| socket.recv_from(packet)).unwrap();
    assert_eq!((len, &packet[..4]), (516, &b"\0\x03\0\x01"[..]));
    (socket, transfer)
}

#[test]
fn a_lost_packet_is_sent_again_until_it_is_given_up() {
    let folder = folder("lost");
    let server = start!("tftp", "--folder", folder.to_str().unwrap(), "--silence", "10");
    let mut packet = [0; 600];
    let (socket, transfer) = begin(&server, &mut packet);
    for _ in 0..5 {
        assert_eq!(uninterrupted(|| socket.recv_from(&mut packet)).unwrap(), (516, transfer));
        assert_eq!(packet[..4], *b"\0\x03\0\x01");
    }
    until("its port is closed", || {
        socket.connect(transfer).unwrap();
        let _ = socket.send(b"\0\x04\0\x00"); // it acknowledges nothing
        socket.take_error().unwrap().is_some()
    });
}

#[test]
fn a_doubled_acknowledgement_brings_one_packet() {
    let folder = folder("doubled");
    let server = start!("tftp", "--folder", folder.to_str().unwrap(), "--silence", "1000000");
    let mut packet = [0; 600];
    let (socket, transfer) = begin(&server, &mut packet);
    // Acknowledged twice, the next one comes once; the one after it is what the second acknowledgement brings.
    socket.send_to(b"\0\x04\0\x01", transfer).unwrap();
    socket.send_to(b"\0\x04\0\x01", transfer).unwrap();
    assert_eq!(uninterrupted(|| socket.recv_from(&mut packet)).unwrap().0, 516);
    assert_eq!(packet[..4], *b"\0\x03\0\x02");
    // Another client has no part in it.
    let (stranger, _) = client(0);
    stranger.send_to(b"\0\x04\0\x02", transfer).unwrap();
    let mut answer = [0; 100];
    uninterrupted(|| stranger.recv_from(&mut answer)).unwrap();
    assert_eq!(answer[..4], *b"\0\x05\0\x05");
    socket.send_to(b"\0\x04\0\x02", transfer).unwrap();
    assert_eq!(
        uninterrupted(|| socket.recv_from(&mut packet)).unwrap().0,
        4,
        "an empty block ends a file of whole blocks"
    );
    assert_eq!(packet[..4], *b"\0\x03\0\x03");
}

#[test]
fn what_is_no_file_of_the_folder_is_refused() {
    let folder = folder("refused");
    let _ = std::fs::remove_file(folder.join("pipe"));
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let server = start!("tftp", "--folder", folder.to_str().unwrap());
    let (socket, to) = client(server.port());
    for (request, code) in [
        (&b"\0\x01../Cargo.toml\0octet\0"[..], 2),
        (b"\0\x01/etc/passwd\0octet\0", 2),
        (b"\0\x01.\0octet\0", 2),
        (b"\0\x01\0octet\0", 2),
        (b"\0\x01none\0octet\0", 1),
        (b"\0\x01\xff\0octet\0", 1),
        (b"\0\x011024\0mail\0", 4),
        (b"\0\x011024", 4),
        (b"\0\x021024\0octet\0", 2),
        (b"\0\x01..\\..\\etc\\passwd\0octet\0", 2),
        (b"\0\x01link/etc/passwd\0octet\0", 2),
        (b"\0\x01pipe\0octet\0", 1), // it would block the loop
        (b"\0\x04\0\x01", 4),
        (b"", 4),
    ] {
        socket.send_to(request, &to).unwrap();
        let mut answer = [0; 100];
        uninterrupted(|| socket.recv_from(&mut answer)).unwrap();
        assert_eq!(answer[..4], [0, 5, 0, code], "{}", request.escape_ascii());
    }
}
