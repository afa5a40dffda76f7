//! A TLS handshake with a hostile client: whatever comes, and in whatever pieces, ends the connection or waits.
#![no_main]

use std::process::Command;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use socketserver::testing::TestLoop;
use socketserver::{HandlerResult, Protocol, TlsConfig, Transport};

struct Greets;

impl Protocol for Greets {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        Ok(transport.start_tls(config(), &[])?)
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

/// A certificate that the openssl command makes once.
fn config() -> &'static TlsConfig {
    static CONFIG: OnceLock<TlsConfig> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("socketserver-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "30", "-subj", "/CN=localhost", "-keyout"]).arg(&key).arg("-out").arg(&cert);
        assert!(openssl.output().unwrap().status.success());
        let config = TlsConfig::from_pem(&cert, &key).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        config
    })
}

// The first byte says how long the pieces are, so that every split is found.
fuzz_target!(|input: &[u8]| {
    let Some((size, hello)) = input.split_first() else { return };
    let mut test = TestLoop::new().unwrap();
    let id = test.connect(Greets);
    for piece in hello.chunks(usize::from(*size).max(1)) {
        test.feed(id, piece);
    }
    let _ = test.output(id);
    test.settle();
});
