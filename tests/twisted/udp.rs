//! `test_udp`: datagrams.
