//! A reply arrives whole, although the client has sent what nobody reads. Closing with unread input makes the kernel
//! send a reset, which destroys what the client has not fetched yet.

use std::thread::sleep;
use std::time::Duration;

use crate::support::{Client, AT_ONCE};
use crate::Traits;

const REPLY: usize = 4_000_000;
/// With its line end.
const WHOLE: usize = REPLY + 1;

fn ask_and_leave_unread(client: &mut Client) {
    // In one piece: whether something is unread must not depend on which side is faster.
    client.send([format!("BIG {REPLY} CLOSE\n").into_bytes(), vec![b'z'; 50_000]].concat());
}

/// Reads the reply in pieces, slowly, with something to do after each; how much of it arrived. A reset is fair once
/// all has arrived, never before.
fn read_slowly(client: &mut Client, mut after_each: impl FnMut(&mut Client, usize)) -> usize {
    let (mut got, mut piece) = (0, vec![0; 100_000]);
    loop {
        match client.read(&mut piece) {
            Ok(0) => return got,
            Ok(n) => got += piece[..n].iter().filter(|byte| b"x\n".contains(byte)).count(),
            Err(_) if got >= WHOLE => return got,
            Err(e) => panic!("{e} after {got} of {WHOLE} bytes"),
        }
        after_each(client, got);
        sleep(Duration::from_millis(2)); // the client's slowness is what is tested
    }
}

pub(crate) fn a_reply_arrives_whole_although_input_was_left_unread(of: &Traits) {
    let server = of.start(&[]);
    for _ in 0..5 {
        let mut client = server.connect();
        ask_and_leave_unread(&mut client);
        assert_eq!(client.rest().len(), WHOLE);
    }
}

pub(crate) fn a_reply_arrives_whole_while_the_client_sends_on(of: &Traits) {
    let server = of.start(&[]);
    let mut client = server.connect();
    ask_and_leave_unread(&mut client);
    let got = read_slowly(&mut client, |client, _| client.send([b'z'; 1000]));
    assert_eq!(got, WHOLE);
}

pub(crate) fn a_reply_arrives_whole_while_the_server_drains(of: &Traits) {
    let mut server = of.start(&[]);
    let mut client = server.connect();
    ask_and_leave_unread(&mut client);
    let mut told = false;
    let got = read_slowly(&mut client, |client, _| {
        client.send([b'z'; 1000]);
        if !told {
            server.signal("TERM");
            told = true;
        }
    });
    assert_eq!(got, WHOLE);
    drop(client);
    server.ended().well_within(AT_ONCE);
}

/// The handler has written all and waits for a request, and the kernel still holds much of the reply. Then comes the
/// stop, and after it a request that the server did not know of.
pub(crate) fn a_reply_arrives_whole_although_the_client_was_idle_at_the_stop(of: &Traits) {
    stop_and_send_on(of, REPLY / 2);
}

/// The stop comes while the handler writes; it finds the client idle only afterwards.
pub(crate) fn a_reply_arrives_whole_although_the_stop_came_before_its_end(of: &Traits) {
    stop_and_send_on(of, 0);
}

fn stop_and_send_on(of: &Traits, stop_after: usize) {
    let mut server = of.start(&[]);
    let mut client = server.connect();
    client.send(format!("BIG {REPLY}\n"));
    let mut told = false;
    let got = read_slowly(&mut client, |client, got| {
        if !told && got > stop_after {
            server.signal_and_see_it_taken("TERM");
            told = true;
        }
        if told && got > REPLY / 2 {
            let _ = client.try_send(b"SLEEP 0\n"); // refused once the server has closed; answered without an x before
        }
    });
    assert!(got >= WHOLE, "{got} of {WHOLE} bytes");
    drop(client);
    server.ended().well_within(AT_ONCE);
}
