//! Values of fields and literals, and how they compare. The left operand's type decides.

use std::{borrow::Cow, cmp::Ordering, net::IpAddr};

use regex::Regex;

/// An address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (network, prefix) = text.split_once('/')?;
        let network: IpAddr = network.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        (prefix <= if network.is_ipv4() { 32 } else { 128 }).then_some(Self { network, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(a)) => {
                (net.to_bits() ^ a.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(a)) => {
                (net.to_bits() ^ a.to_bits()).checked_shr(128 - prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// A hardware address of six or eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac {
    bytes: [u8; 8],
    len: usize,
}

impl Mac {
    /// Pairs of hexadecimal digits with five or seven colons between.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut mac = Self { bytes: [0; 8], len: 0 };
        for pair in text.split(':') {
            let digits = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
            *mac.bytes.get_mut(mac.len)? = u8::from_str_radix(pair, 16).ok().filter(|_| digits)?;
            mac.len += 1;
        }
        matches!(mac.len, 6 | 8).then_some(mac)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn print(&self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
    }
}

/// A value of a field or a literal.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Whole number.
    Int(i128),
    /// Other number.
    Float(f64),
    /// Truth.
    Bool(bool),
    /// Address.
    Ip(IpAddr),
    /// Address range.
    Cidr(Cidr),
    /// Hardware address.
    Mac(Mac),
    /// Bytes written in hexadecimal, with their text.
    Hex(Vec<u8>, Cow<'a, str>),
    /// Several texts, such as tags.
    Texts(Vec<Cow<'a, str>>),
    /// Regular expression; only literals are.
    Regex(Regex),
    /// Array literal.
    Array(Vec<Value<'a>>),
}

impl<'a> Value<'a> {
    /// Text without a copy.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// Whether a bare operand counts as true: anything but zero and emptiness.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Int(n) => *n != 0,
            Self::Float(n) => *n != 0.0,
            Self::Bool(b) => *b,
            Self::Hex(bytes, _) => !bytes.is_empty(),
            Self::Array(values) => !values.is_empty(),
            Self::Ip(_) | Self::Mac(_) | Self::Cidr(_) | Self::Texts(_) | Self::Regex(_) => true,
        }
    }

    /// The printed form.
    pub(crate) fn print(&self) -> String {
        match self {
            Self::Text(text) | Self::Hex(_, text) => text.to_string(),
            Self::Int(n) => n.to_string(),
            Self::Float(n) => n.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::Ip(ip) => ip.to_string(),
            Self::Mac(mac) => mac.print(),
            Self::Cidr(cidr) => format!("{}/{}", cidr.network, cidr.prefix),
            Self::Texts(texts) => texts.join(","),
            Self::Regex(regex) => regex.as_str().to_owned(),
            Self::Array(values) => values.iter().map(Value::print).collect::<Vec<_>>().join(","),
        }
    }

    /// Which of two numbers is larger; `None` if one is none.
    pub(crate) fn order(&self, right: &Self) -> Option<Ordering> {
        match (self, right) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            _ => self.number()?.partial_cmp(&right.number()?),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "inequalities compare numbers of both kinds")]
            Self::Int(n) => Some(*n as f64),
            Self::Float(n) => Some(*n),
            _ => None,
        }
    }

    /// `==`.
    pub(crate) fn equals(&self, right: &Self) -> bool {
        match (self, right) {
            (Self::Array(values), x) => values.iter().any(|value| value.equals(x)),
            (x, Self::Array(values)) => values.iter().any(|value| x.equals(value)),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Text(a), Self::Regex(regex)) => regex.is_match(a),
            (Self::Text(a), Self::Ip(_) | Self::Cidr(_)) => **a == right.print(),
            (Self::Text(a), Self::Hex(bytes, _)) => a.as_bytes() == bytes.as_slice(),
            (Self::Texts(texts), Self::Text(b)) => texts.iter().any(|text| text == b),
            (Self::Texts(texts), Self::Regex(regex)) => texts.iter().any(|text| regex.is_match(text)),
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Mac(a), Self::Mac(b)) => a == b,
            (Self::Mac(a), Self::Text(_) | Self::Hex(..)) => a.print().eq_ignore_ascii_case(&right.print()),
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Ip(a), Self::Cidr(range)) | (Self::Cidr(range), Self::Ip(a)) => range.contains(*a),
            #[expect(clippy::float_cmp, reason = "equality of numbers as written")]
            _ => match (self.number(), right.number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }

    /// `!=`, which is not always the opposite: unlike types are neither equal nor unequal, and a list differs if any
    /// of its elements does.
    #[expect(clippy::match_same_arms, reason = "arrays come first, whatever is on the other side")]
    pub(crate) fn differs(&self, right: &Self) -> bool {
        match (self, right) {
            (Self::Array(_), _) | (_, Self::Array(_)) => !self.equals(right),
            (Self::Texts(texts), Self::Text(b)) => texts.iter().any(|text| text != b),
            (Self::Texts(texts), Self::Regex(regex)) => texts.iter().any(|text| !regex.is_match(text)),
            (Self::Text(_), Self::Text(_) | Self::Regex(_) | Self::Ip(_) | Self::Cidr(_) | Self::Hex(..))
            | (Self::Bool(_), Self::Bool(_))
            | (Self::Mac(_), Self::Mac(_) | Self::Text(_) | Self::Hex(..))
            | (Self::Ip(_), Self::Ip(_) | Self::Cidr(_))
            | (Self::Cidr(_), Self::Ip(_)) => !self.equals(right),
            _ => self.number().is_some() && right.number().is_some() && !self.equals(right),
        }
    }

    /// `contains`.
    pub(crate) fn contains(&self, right: &Self) -> bool {
        match (self, right) {
            (_, Self::Array(_)) | (Self::Int(_) | Self::Float(_) | Self::Bool(_), _) | (Self::Ip(_), Self::Ip(_)) => {
                false
            }
            (Self::Array(values), x) => values.iter().any(|value| value.equals(x)),
            (Self::Text(a), Self::Text(b)) => a.contains(b.as_ref()),
            (Self::Text(a), Self::Ip(_) | Self::Cidr(_)) => a.contains(&right.print()),
            (Self::Text(a), Self::Hex(bytes, _)) => {
                bytes.is_empty() || a.as_bytes().windows(bytes.len()).any(|window| window == bytes.as_slice())
            }
            (Self::Mac(a), Self::Mac(b)) => a.bytes().windows(b.len).any(|window| window == b.bytes()),
            (Self::Mac(a), Self::Text(_) | Self::Hex(..)) => a.print().contains(&right.print().to_ascii_lowercase()),
            _ => self.equals(right),
        }
    }

    /// `in`: the right side contains the left one.
    pub(crate) fn is_in(&self, right: &Self) -> bool {
        match right {
            Self::Array(items) => items.iter().any(|item| item.equals(self)),
            range => range.contains(self),
        }
    }
}
