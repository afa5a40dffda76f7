//! `test_tcp`: what a transport does.
