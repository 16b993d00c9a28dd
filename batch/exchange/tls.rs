//! What the hello messages of TLS say: the name that is asked for, the protocols that are offered, the version.

use tls_parser::{
    SNIType, TlsExtension, TlsMessage, TlsMessageHandshake, TlsVersion, parse_tls_extensions,
    parse_tls_message_handshake,
};

use crate::exchange::Part;

/// Bytes of a hello at most; beyond, nothing is learnt from it.
const HELLO_MAX: usize = 16 << 10;
/// First byte of a handshake's records, and the first byte of their version.
const HANDSHAKE: [u8; 2] = [22, 3];

/// Kinds of messages that a handshake begins with.
const HELLOS: [u8; 2] = [1, 2];
/// Bytes of a record's head.
const RECORD: usize = 5;

/// What both ends have said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hello {
    /// Name of the server, as the client asks for it.
    pub sni: Option<String>,
    /// Protocols that the client offers, in its order.
    pub alpn: Vec<String>,
    /// 1.2, 1.3, as the server has chosen.
    pub version: Option<f64>,
}

/// What first bytes can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A handshake.
    Handshake,
    /// With more bytes.
    Undecided,
    Other,
}

pub(crate) fn opening_of(bytes: &[u8]) -> Opening {
    match bytes {
        [first] if *first == HANDSHAKE[0] => Opening::Undecided,
        _ if bytes.starts_with(&HANDSHAKE) => Opening::Handshake,
        _ => Opening::Other,
    }
}

/// The beginning of a connection that goes on in ciphertext.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    hello: Hello,
    /// Bytes of a hello that is not complete, by half.
    begun: [Vec<u8>; 2],
    done: [bool; 2],
}

impl Tls {
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Whether nothing more can be learnt.
    pub(crate) fn is_over(&self) -> bool {
        self.done == [true, true]
    }

    pub(crate) fn kept_bytes(&self) -> usize {
        self.begun.iter().map(Vec::len).sum()
    }

    /// Nothing more will come.
    pub(crate) fn end(&mut self) {
        self.missing(Part::Request);
        self.missing(Part::Response);
    }

    /// Bytes are missing: what was begun is not completed.
    pub(crate) fn missing(&mut self, part: Part) {
        self.done[part.index()] = true;
        self.begun[part.index()] = Vec::new();
    }

    pub(crate) fn feed(&mut self, part: Part, bytes: &[u8]) {
        let at = part.index();
        if self.done[at] {
            return;
        }
        self.begun[at].extend_from_slice(bytes);
        let begun = std::mem::take(&mut self.begun[at]);
        match hello_of(&begun, &mut self.hello) {
            // Not yet all of it.
            false if begun.len() < HELLO_MAX => self.begun[at] = begun,
            _ => self.done[at] = true,
        }
    }
}

/// Reads a hello, which can lie in several records. False: there is more of it to come.
fn hello_of(bytes: &[u8], hello: &mut Hello) -> bool {
    let (mut rest, mut joined) = (bytes, Vec::new());
    while let Some((&[kind, 3, _, high, low], behind)) = rest.split_first_chunk::<RECORD>() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        // Anything else than a handshake between its parts is none of ours.
        let Some(part) = behind.get(..len).filter(|_| kind == HANDSHAKE[0]) else { break };
        joined.extend_from_slice(part);
        rest = &behind[len..];
        if joined.first().is_some_and(|kind| !HELLOS.contains(kind)) {
            return true;
        }
        match parse_tls_message_handshake(&joined) {
            Ok((_, message)) => {
                read_hello(&message, hello);
                return true;
            }
            Err(tls_parser::Err::Incomplete(_)) => {}
            Err(_) => return true,
        }
    }
    // Whole records that are no handshake, or none of TLS: nothing that comes can make one of them.
    let Some(&[kind, major, ..]) = rest.first_chunk::<2>() else { return false };
    [kind, major] != HANDSHAKE
}

fn read_hello(message: &TlsMessage<'_>, hello: &mut Hello) {
    match message {
        TlsMessage::Handshake(TlsMessageHandshake::ClientHello(client)) => {
            for extension in extensions(client.ext) {
                read_offer(&extension, hello);
            }
        }
        TlsMessage::Handshake(TlsMessageHandshake::ServerHello(server)) => {
            hello.version = version(server.version);
            for extension in extensions(server.ext) {
                if let TlsExtension::SupportedVersions(chosen) = extension {
                    hello.version = chosen.first().and_then(|chosen| version(*chosen)).or(hello.version);
                }
            }
        }
        _ => {}
    }
}

fn extensions(bytes: Option<&[u8]>) -> Vec<TlsExtension<'_>> {
    bytes.and_then(|bytes| parse_tls_extensions(bytes).ok()).map(|(_, extensions)| extensions).unwrap_or_default()
}

fn read_offer(extension: &TlsExtension<'_>, hello: &mut Hello) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match extension {
        TlsExtension::SNI(names) => {
            let name = names.iter().find(|(kind, name)| *kind == SNIType::HostName && !name.is_empty());
            hello.sni = name.map(|(_, name)| text(name).to_ascii_lowercase());
        }
        TlsExtension::ALPN(offered) => hello.alpn = offered.iter().map(|name| text(name)).collect(),
        _ => {}
    }
}

fn version(version: TlsVersion) -> Option<f64> {
    match version {
        TlsVersion::Tls10 => Some(1.0),
        TlsVersion::Tls11 => Some(1.1),
        TlsVersion::Tls12 => Some(1.2),
        TlsVersion::Tls13 => Some(1.3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Connection, Direction, Limits, Protocol, Role};

    /// A record with a hello: its kind, its version, what stands between the random bytes and the extensions.
    fn record(kind: u8, middle: &[u8], extensions: &[u8]) -> Vec<u8> {
        let wide = |len: usize| u16::try_from(len).expect("small").to_be_bytes();
        let body = [&[3, 3][..], &[7; 32], middle, &wide(extensions.len()), extensions].concat();
        let message = [&[kind, 0][..], &wide(body.len()), &body].concat();
        [&[22, 3, 1][..], &wide(message.len()), &message].concat()
    }

    fn hellos() -> [Vec<u8>; 2] {
        let sni = [&[0, 0, 0, 14, 0, 12, 0, 0, 9][..], b"Shop.Test"].concat();
        let alpn = [&[0, 16, 0, 14, 0, 12, 2][..], b"h2", &[8], b"http/1.1"].concat();
        let client = record(1, &[0, 0, 2, 0x13, 0x01, 1, 0], &[sni, alpn].concat());
        let server = record(2, &[0, 0x13, 0x01, 0], &[0, 43, 0, 2, 3, 4]);
        [client, server]
    }

    #[test]
    fn hellos_are_read_at_every_split() {
        let [client, server] = hellos();
        for split in 0..=client.len() {
            let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
            let mut out = Vec::new();
            for part in [&client[..split], &client[split..]] {
                let at = connection.next_offset(Direction::Sent);
                connection.data(Direction::Sent, at, part, 1, &mut out);
            }
            for (at, byte) in server.iter().enumerate() {
                connection.data(Direction::Received, at as u64, &[*byte], 2, &mut out);
            }
            let hello = connection.hello().expect("a hello");
            assert_eq!(hello.sni.as_deref(), Some("shop.test"), "split at {split}");
            assert_eq!(
                (hello.alpn.as_slice(), hello.version),
                (&["h2".to_owned(), "http/1.1".to_owned()][..], Some(1.3))
            );
            assert_eq!((connection.protocol(), connection.is_opaque()), (Protocol::Tls, true));
            assert_eq!(connection.kept_bytes(), 0);
        }
    }

    #[test]
    fn noise_behind_the_first_bytes_is_no_hello() {
        let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
        let mut out = Vec::new();
        connection.data(Direction::Sent, 0, &[22, 3, 1, 0, 4, 9, 9, 9, 9], 1, &mut out);
        connection.data(Direction::Received, 0, &[22, 3, 1, 0xff, 0xff, 0], 1, &mut out);
        assert_eq!(connection.hello(), Some(&Hello::default()));
        connection.data(Direction::Received, 6, &vec![0; 32 << 10], 1, &mut out);
        assert!(connection.is_opaque() && connection.kept_bytes() == 0);
    }
}
