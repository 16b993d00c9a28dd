//! Answers of name servers: any datagram, and any stream however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtap_exchange::{
    Connection, Direction, Exchange, Limits, Observer, Role,
    dns::Answer,
};

#[derive(Default)]
struct Answers(Vec<Answer>);

impl Observer for Answers {
    fn complete(&mut self, _: Exchange) {}

    fn answered(&mut self, answer: Answer) {
        self.0.push(answer);
    }
}

fn stream(parts: &[&[u8]]) -> Vec<Answer> {
    let mut connection = Connection::to_name_server(Limits::default(), Some(Role::Client), false);
    let mut out = Answers::default();
    for part in parts {
        let at = connection.next_offset(Direction::Received);
        connection.data(Direction::Received, at, part, 0, &mut out);
        assert!(connection.kept_bytes() <= 256 << 10);
    }
    out.0
}

fuzz_target!(|input: &[u8]| {
    if let Some(answer) = Answer::read(input) {
        assert!(!answer.name.is_empty() && !answer.addresses.is_empty() && answer.addresses.len() <= 64);
    }
    let Some((cut, rest)) = input.split_first() else { return };
    let (a, b) = rest.split_at(usize::from(*cut).min(rest.len()));
    assert_eq!(stream(&[rest]), stream(&[a, b]));
});
