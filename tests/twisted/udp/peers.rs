//! Peers of connected sockets.

use super::*;

/// Connects to what it is told, and notes where answers come from.
fn asks(reactor: &mut Reactor, journal: &Journal, from: &str, peer: Addr) -> DatagramPort {
    reactor.listen_udp(from, Noting { at_start: Some(peer), ..quiet(journal) }).unwrap()
}

/// The peer's name, however it was spelt: for the kernel, "this host" is the loopback, and a file has many paths. Who
/// was connected to another spelling was deaf.
#[test]
fn a_connected_socket_hears_its_peer_by_any_spelling() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let server = UdpSocket::bind(ANY).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut buf = [0; 10];
    for peer in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
        let socket = asks(&mut reactor, &journal, ANY, peer.parse().unwrap());
        let (_, from) = server.recv_from(&mut buf).unwrap();
        assert_eq!(from, at(&socket));
        server.send_to(b"answer", from).unwrap();
        turn(&mut reactor);
        assert_eq!(journal.take(), "start data:answer", "{peer}");
    }
    let Ok(server) = UdpSocket::bind("[::1]:0") else { return }; // no IPv6 here
    let peer = std::net::SocketAddrV6::new([0, 0, 0, 0, 0, 0, 0, 1].into(), server.local_addr().unwrap().port(), 5, 0);
    asks(&mut reactor, &journal, "[::1]:0", SocketAddr::from(peer).into());
    let (_, from) = server.recv_from(&mut buf).unwrap();
    server.send_to(b"answer", from).unwrap();
    turn(&mut reactor);
    assert_eq!(journal.take(), "start data:answer", "a flow label is no part of the name");
}

#[test]
fn a_connected_socket_hears_its_peer_by_any_path() {
    let dir = std::env::temp_dir().join(format!("socketserver-twisted-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let server = UnixDatagram::bind(dir.join("d.sock")).unwrap();
    let (dir_text, own) = (dir.display(), dir.join("own.sock"));
    for peer in [format!("unix:{dir_text}/d.sock"), format!("unix:{dir_text}/sub/../d.sock")] {
        let port = asks(&mut reactor, &journal, &format!("unix:{}", own.display()), peer.parse().unwrap());
        server.recv(&mut [0; 10]).unwrap();
        server.send_to(b"answer", &own).unwrap();
        turn(&mut reactor);
        reactor.context().stop_listening_udp(&port);
        turn(&mut reactor);
        assert_eq!(journal.take(), "start data:answer stop", "{peer}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
