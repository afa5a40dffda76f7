//! Addresses as text: what is written is read back, and no text makes the reader panic.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use socketserver::{Addr, Address};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(ip: IpAddr, port: u16, path in "[^\\pC\\pM\\pZ]{1,26}", name in "[ -~]{1,107}") {
        for addr in [Addr::Ip(SocketAddr::new(ip, port)), Addr::Unix(format!("/{path}").into()),
                     Addr::Abstract(name.into_bytes()), Addr::Unnamed] {
            let text = addr.to_string();
            // Characters younger than the standard library's tables are escaped.
            if !text.contains("\\x") {
                prop_assert_eq!(text.parse::<Addr>().unwrap(), addr);
            }
        }
        let text = Address::from(SocketAddr::new(ip, port)).to_string();
        prop_assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }

    #[test]
    fn what_is_read_is_written_as_it_was(text in "(unix:|unix:@|/|fd:|\\[)?(\\PC|\\pC|:|%|\\]){0,12}(:[0-9]{1,5})?") {
        let printed = Address::from(text.as_str()).to_string();
        prop_assert!(!printed.chars().any(char::is_control), "{:?}", printed);
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text: String) {
        let _ = (text.parse::<Address>(), text.parse::<Addr>(), Address::from(text.as_str()).to_string());
    }
}
