//! [`TlsStep`]: the handshake of TLS.

use std::io;
use std::os::fd::AsFd;

use super::{GreetingError, Progress, Step};
use crate::net::Socket;
use crate::observe::GreetingFailure;
use crate::tls::{Session, TlsConfig};

/// Shakes hands. Of a failure the client reads an alert.
#[derive(Debug)]
pub(crate) struct TlsStep(Session);

impl TlsStep {
    pub(crate) fn new(config: &TlsConfig) -> Result<Self, GreetingError> {
        Session::server(config).map(Self).map_err(|e| GreetingError::new(GreetingFailure::System, e))
    }

    /// Returns the session, once the step is done.
    pub(crate) fn into_session(self) -> Option<Session> {
        Some(self.0)
    }
}

impl Step for TlsStep {
    fn advance(&mut self, socket: &Socket) -> Result<Progress, GreetingError> {
        match self.0.handshake(&socket.as_fd()) {
            Ok(()) => Ok(Progress::Done),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(if self.0.wants_write() { Progress::WantsWrite } else { Progress::WantsRead })
            }
            // The system's errors have a number, those of the protocol none.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted && e.raw_os_error().is_none() => {
                let error = io::Error::new(e.kind(), format!("the TLS handshake failed: {e}"));
                Err(GreetingError::new(GreetingFailure::Tls, error))
            }
            Err(e) => Err(GreetingError::of_socket(e)),
        }
    }
}
