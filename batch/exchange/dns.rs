//! Answers of name servers, over UDP and TCP: which name stands for which addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::{Packet, PacketFlag, RCODE, rdata::RData};

/// Port of name servers.
pub const PORT: u16 = 53;
/// Addresses of one answer that are looked at.
const ADDRESSES_MAX: usize = 64;

/// What a name server has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for, in lower case, without the dot at its end.
    pub name: String,
    /// Its addresses, and for how many seconds each is valid.
    pub addresses: Vec<(IpAddr, u32)>,
}

impl Answer {
    /// Reads a message. `None`: it is no answer, or an answer without addresses.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let packet = Packet::parse(message).ok()?;
        let answers = packet.has_flags(PacketFlag::RESPONSE) && packet.rcode() == RCODE::NoError;
        // An alias is answered with the addresses of what it stands for: the name is the one that was asked for.
        let question = packet.questions.first().filter(|_| answers)?;
        let name = question.qname.to_string().trim_end_matches('.').to_ascii_lowercase();
        let address = |data: &RData<'_>| match data {
            RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
            RData::AAAA(aaaa) => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
            _ => None,
        };
        let addresses: Vec<(IpAddr, u32)> =
            packet.answers.iter().filter_map(|one| Some((address(&one.rdata)?, one.ttl))).take(ADDRESSES_MAX).collect();
        (!name.is_empty() && !addresses.is_empty()).then_some(Self { name, addresses })
    }
}

/// The messages of a TCP connection: each behind its length, in two bytes.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    begun: Vec<u8>,
    /// The place is lost.
    lost: bool,
}

impl Stream {
    pub(crate) fn kept_bytes(&self) -> usize {
        self.begun.capacity()
    }

    pub(crate) fn missing(&mut self) {
        self.lost = true;
        self.begun = Vec::new();
    }

    pub(crate) fn feed(&mut self, bytes: &[u8], mut answered: impl FnMut(Answer)) {
        if self.lost {
            return;
        }
        self.begun.extend_from_slice(bytes);
        let mut rest = self.begun.as_slice();
        while let Some((len, behind)) = rest.split_first_chunk()
            && let Some((message, behind)) = behind.split_at_checked(usize::from(u16::from_be_bytes(*len)))
        {
            Answer::read(message).into_iter().for_each(&mut answered);
            rest = behind;
        }
        self.begun = rest.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `shop.test` is an alias of `a.test`, which has one address of each kind.
    pub(crate) fn answer() -> Vec<u8> {
        let alias = [&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 8][..], &[1, b'a', 4], b"test", &[0]].concat();
        let four = [0xc0, 39, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 7];
        let six = [&[0xc0, 39, 0, 28, 0, 1, 0, 0, 0, 31, 0, 16][..], &[0x20, 1, 0x0d, 0xb8], &[0; 11], &[7]].concat();
        let question = [&[4][..], b"Shop", &[4], b"test", &[0, 0, 1, 0, 1]].concat();
        [&[0, 1, 0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 0][..], &question, &alias, &four, &six].concat()
    }

    #[test]
    fn aliases_have_the_addresses_of_what_they_stand_for() {
        let read = Answer::read(&answer()).expect("an answer");
        assert_eq!(read.name, "shop.test");
        let addresses = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().expect("an address"));
        assert_eq!(read.addresses, [(addresses[0], 30), (addresses[1], 31)]);
    }

    #[test]
    fn what_is_no_answer_is_passed_over() {
        let mut question = answer();
        question[2] = 0x01;
        let mut failed = answer();
        failed[3] = 0x83;
        for message in [&question[..], &failed, &answer()[..20], &[], &[0xff; 600]] {
            assert_eq!(Answer::read(message), None);
        }
    }

    #[test]
    fn streams_are_cut_at_every_place() {
        let message = answer();
        let framed = [&u16::try_from(message.len()).expect("small").to_be_bytes()[..], &message].concat();
        let two = [framed.clone(), framed].concat();
        for cut in 0..=two.len() {
            let (mut stream, mut found) = (Stream::default(), 0);
            stream.feed(&two[..cut], |_| found += 1);
            stream.feed(&two[cut..], |_| found += 1);
            assert_eq!((found, stream.begun.len()), (2, 0), "cut at {cut}");
        }
    }
}
