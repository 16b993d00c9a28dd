//! Names of addresses, as name servers have answered them to anybody on this machine.

use std::{collections::HashMap, net::IpAddr, sync::Mutex};

use ringtap_exchange::dns::Answer;

/// Addresses that are remembered at most.
const NAMES_MAX: usize = 65_536;
/// An answer is worth a connection for some time, however short it is valid.
const VALID_S_MIN: u64 = 60;

#[derive(Debug)]
struct Name {
    name: String,
    until_ns: u64,
}

/// The names, shared by all shards.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashMap<IpAddr, Name>>);

impl Names {
    /// Takes note of an answer that came at `now_ns`, in the records' time.
    pub fn learn(&self, answer: &Answer, now_ns: u64) {
        let Ok(mut names) = self.0.lock() else { return };
        if names.len() + answer.addresses.len() > NAMES_MAX {
            names.retain(|_, name| name.until_ns > now_ns);
        }
        for (address, valid_s) in &answer.addresses {
            if names.len() < NAMES_MAX || names.contains_key(address) {
                let until_ns = now_ns.saturating_add(u64::from(*valid_s).max(VALID_S_MIN) * 1_000_000_000);
                names.insert(*address, Name { name: answer.name.clone(), until_ns });
            }
        }
    }

    /// The name that was answered last for an address, if it is still valid.
    #[must_use]
    pub fn of(&self, address: IpAddr, now_ns: u64) -> Option<String> {
        let names = self.0.lock().ok()?;
        names.get(&address).filter(|name| name.until_ns > now_ns).map(|name| name.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_for_their_time() {
        let (names, address) = (Names::default(), IpAddr::from([192, 0, 2, 7]));
        let answer = |name: &str, valid| Answer { name: name.to_owned(), addresses: vec![(address, valid)] };
        names.learn(&answer("short.test", 0), 0);
        assert_eq!(names.of(address, 59_000_000_000).as_deref(), Some("short.test"));
        assert_eq!(names.of(address, 61_000_000_000), None);
        names.learn(&answer("long.test", 3600), 0);
        assert_eq!(names.of(address, 3_000_000_000_000).as_deref(), Some("long.test"));
    }

    #[test]
    fn the_table_is_bounded() {
        let names = Names::default();
        for n in 0..70_000_u32 {
            names.learn(
                &Answer { name: "n".into(), addresses: vec![(IpAddr::from(n.to_be_bytes()), 60)] },
                u64::from(n),
            );
        }
        assert!(names.0.lock().expect("nobody panicked").len() <= NAMES_MAX);
    }
}
