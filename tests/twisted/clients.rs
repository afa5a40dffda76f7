//! `test_tcp`, `test_factories`: connecting, failing to, and connecting again.
