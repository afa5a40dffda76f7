//! A build without TLS: types that have no value. The compiler drops every branch that would use one.

use std::io::{self, IoSlice};

use super::stream::Ciphertext;

/// The certificates of a server, which no one can give.
#[derive(Debug, Clone)]
pub(crate) enum TlsConfig {}

impl TlsConfig {
    pub(crate) fn reload_files(&self) -> crate::error::Result<()> {
        match *self {}
    }
}

/// What a client trusts, which no one can give.
#[derive(Debug, Clone)]
pub(crate) enum TlsClientConfig {}

/// What no handshake has agreed upon.
#[derive(Debug, Clone)]
pub(crate) enum TlsInfo {}

impl TlsInfo {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match *self {}
    }

    pub(crate) fn from_bytes(_bytes: &[u8]) -> Option<Self> {
        None
    }
}

/// A session that cannot exist.
#[derive(Debug)]
pub(crate) enum Session {}

impl Session {
    pub(crate) fn server(config: &TlsConfig) -> io::Result<Self> {
        match *config {}
    }

    pub(crate) fn client(config: &TlsClientConfig, _server_name: &str) -> io::Result<Self> {
        match *config {}
    }

    pub(crate) fn info(&self) -> TlsInfo {
        match *self {}
    }

    pub(crate) fn handshake(&self, _below: &impl Ciphertext) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(crate) fn recv(&self, _below: &impl Ciphertext, _buf: &mut [u8], _wait: bool) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn send(&self, _below: &impl Ciphertext, _parts: &[IoSlice<'_>], _wait: bool) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn push(&self, _below: &impl Ciphertext, _wait: bool) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn wants_write(&self) -> bool {
        match *self {}
    }

    pub(crate) fn holds_input(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_plaintext(&self) -> bool {
        match *self {}
    }

    pub(crate) fn queue_close_notify(&self) {
        match *self {}
    }
}
