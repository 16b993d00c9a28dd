//! Tokens. The longest match wins; of equal lengths the earlier class in the list below.

use std::{borrow::Cow, net::IpAddr, ops::Range};

use regex::RegexBuilder;

use crate::value::{Cidr, Mac, Value};

/// A regular expression's compiled size at most, and how many one expression may hold.
const REGEX_BYTES_MAX: usize = 1 << 20;
const REGEXES_MAX: usize = 64;

#[derive(Debug, Clone)]
pub(crate) enum Token {
    Or,
    And,
    Not,
    Operator(Operator),
    Open,
    Close,
    OpenArray,
    CloseArray,
    Comma,
    Literal(Value<'static>),
    /// A name with its opening parenthesis.
    Function(String),
    Field(String),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    Contains,
    In,
    Matches,
}

/// A token that cannot be read: where, and what is wrong.
#[derive(Debug)]
pub(crate) struct LexError {
    pub(crate) at: usize,
    pub(crate) message: String,
}

const SYMBOLS: [(&str, Token); 18] = [
    ("||", Token::Or),
    ("&&", Token::And),
    ("==", Token::Operator(Operator::Eq)),
    ("!=", Token::Operator(Operator::Ne)),
    (">=", Token::Operator(Operator::Ge)),
    ("<=", Token::Operator(Operator::Le)),
    ("=~", Token::Operator(Operator::Matches)),
    (">", Token::Operator(Operator::Gt)),
    ("<", Token::Operator(Operator::Lt)),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    ("[", Token::OpenArray),
    ("]", Token::CloseArray),
    (",", Token::Comma),
    ("≥", Token::Operator(Operator::Ge)),
    ("≤", Token::Operator(Operator::Le)),
    ("≠", Token::Operator(Operator::Ne)),
];

/// Splits a whole expression; each token with its place.
pub(crate) fn tokens(text: &str) -> Result<Vec<(Range<usize>, Token)>, LexError> {
    let (mut tokens, mut regexes) = (Vec::new(), 0);
    let mut at = 0;
    loop {
        at = skip_blank(text, at)?;
        if at == text.len() {
            tokens.push((at..at, Token::End));
            return Ok(tokens);
        }
        let (len, token) = next(&text[at..]).map_err(|message| LexError { at, message })?;
        regexes += usize::from(matches!(token, Token::Literal(Value::Regex(_))));
        if regexes > REGEXES_MAX {
            return Err(LexError {
                at,
                message: format!("more than {REGEXES_MAX} regular expressions in one expression"),
            });
        }
        tokens.push((at..at + len, token));
        at += len;
    }
}

fn skip_blank(text: &str, mut at: usize) -> Result<usize, LexError> {
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if trimmed.starts_with("--") {
            at += trimmed.find('\n').unwrap_or(trimmed.len());
        } else if trimmed.starts_with("/*") {
            let end = trimmed.find("*/").ok_or_else(|| LexError { at, message: "this comment has no end".into() })?;
            at += end + 2;
        } else {
            return Ok(at);
        }
    }
}

fn next(text: &str) -> Result<(usize, Token), String> {
    let first = text.chars().next().unwrap_or_default();
    match first {
        '"' | '\'' => return string(text, first),
        '/' => return regex(text, '/'),
        '|' if !text.starts_with("||") => return regex(text, '|'),
        _ => {}
    }
    let sign = usize::from(first == '+');
    let part = |c: char| c.is_ascii_alphanumeric() || "_.-:/".contains(c);
    let word_len = text[sign..].find(|c| !part(c)).map_or(text.len(), |end| sign + end);
    if let Some(found) = word(&text[..word_len], &text[word_len..]) {
        return found;
    }
    let symbol = SYMBOLS.iter().find(|(symbol, _)| text.starts_with(symbol));
    symbol.map(|(symbol, token)| (symbol.len(), token.clone())).ok_or_else(|| format!("`{first}` means nothing here"))
}

/// Everything that begins with a letter, a digit, a sign, a dot or a colon: the longest reading of `word`.
fn word(word: &str, rest: &str) -> Option<Result<(usize, Token), String>> {
    let mut best: Option<(usize, Result<Token, String>)> = None;
    let mut offer = |len: usize, token: Option<Result<Token, String>>| {
        if let Some(token) = token
            && len > best.as_ref().map_or(0, |(len, _)| *len)
        {
            best = Some((len, token));
        }
    };
    let name = prefix(word, |c| c.is_ascii_alphanumeric() || c == '_');
    let begins_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let sign = usize::from(word.starts_with(['-', '+']));
    let digits = prefix(&word[sign..], |c| c.is_ascii_digit()).len();
    let addressed = prefix(word, |c| c.is_ascii_hexdigit() || ".:".contains(c));
    let masked = prefix(word, |c| c.is_ascii_hexdigit() || ".:/".contains(c));
    let hex = hex_prefix(word);

    offer(name.len(), keyword(name).map(Ok));
    if digits > 0 {
        offer(sign + digits, Some(int(&word[..sign + digits])));
    }
    offer_float(word, sign + digits, &mut offer);
    offer(name.len(), name.to_ascii_lowercase().parse().ok().map(|b| Ok(Token::Literal(Value::Bool(b)))));
    offer(addressed.len(), addressed.parse::<IpAddr>().ok().map(|ip| Ok(Token::Literal(Value::Ip(ip)))));
    offer(masked.len(), Cidr::parse(masked).map(|cidr| Ok(Token::Literal(Value::Cidr(cidr)))));
    offer(hex.len(), decode_hex(hex).map(|b| Ok(Token::Literal(Value::Hex(b, Cow::Owned(hex.into()))))));
    if begins_name {
        // `not(x)` is a negation.
        if name.len() == word.len() && rest.starts_with('(') && keyword(name).is_none() {
            offer(name.len() + 1, Some(Ok(Token::Function(name.to_owned()))));
        }
        let field = prefix(word, |c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        offer(field.len(), Some(Ok(Token::Field(field.to_owned()))));
    }
    best.map(|(len, token)| token.map(|token| (len, token)))
}

fn prefix(text: &str, accept: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !accept(c)).unwrap_or(text.len())]
}

fn keyword(word: &str) -> Option<Token> {
    Some(match word.to_ascii_lowercase().as_str() {
        "or" => Token::Or,
        "and" => Token::And,
        "not" => Token::Not,
        "eq" => Token::Operator(Operator::Eq),
        "ne" => Token::Operator(Operator::Ne),
        "gt" => Token::Operator(Operator::Gt),
        "ge" => Token::Operator(Operator::Ge),
        "lt" => Token::Operator(Operator::Lt),
        "le" => Token::Operator(Operator::Le),
        "contains" => Token::Operator(Operator::Contains),
        "in" => Token::Operator(Operator::In),
        "matches" => Token::Operator(Operator::Matches),
        _ => return None,
    })
}

/// A leading zero makes the number octal.
fn int(text: &str) -> Result<Token, String> {
    let negative = text.starts_with('-');
    let digits = text.trim_start_matches(['-', '+']);
    let octal = digits.len() > 1 && digits.starts_with('0');
    let value = i128::from_str_radix(digits, if octal { 8 } else { 10 })
        .map_err(|_| format!("`{text}` is not a number{}", if octal { ": a leading 0 makes it octal" } else { "" }))?;
    let value = if negative { -value } else { value };
    if value < i128::from(i64::MIN) || value > i128::from(u64::MAX) {
        return Err(format!("`{text}` does not fit into 64 bits"));
    }
    Ok(Token::Literal(Value::Int(value)))
}

fn offer_float(word: &str, int_len: usize, offer: &mut impl FnMut(usize, Option<Result<Token, String>>)) {
    if !word[int_len..].starts_with('.') {
        return;
    }
    let fraction = prefix(&word[int_len + 1..], |c| c.is_ascii_digit());
    if !fraction.is_empty() {
        let len = int_len + 1 + fraction.len();
        offer(len, word[..len].parse().ok().map(|n| Ok(Token::Literal(Value::Float(n)))));
    }
}

/// Pairs of hex digits with optional colons between.
fn hex_prefix(word: &str) -> &str {
    let bytes = word.as_bytes();
    let mut end = 0;
    loop {
        let at = end + usize::from(end > 0 && bytes.get(end) == Some(&b':'));
        match bytes.get(at..at + 2) {
            Some(pair) if pair.iter().all(u8::is_ascii_hexdigit) => end = at + 2,
            _ => return &word[..end],
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    if digits.is_empty() {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A quoted text; one that reads as an address, a range or a hardware address is that.
fn string(text: &str, quote: char) -> Result<(usize, Token), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                return Ok((at + 1, Token::Literal(typed(value))));
            }
            '\\' => {
                let (_, escaped) = chars.next().ok_or("this text has no end")?;
                value.push(unescape(escaped, &mut chars)?);
            }
            c => value.push(c),
        }
    }
    Err("this text has no end".into())
}

fn typed(text: String) -> Value<'static> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        Value::Ip(ip)
    } else if let Some(range) = Cidr::parse(&text) {
        Value::Cidr(range)
    } else if let Some(mac) = Mac::parse(&text) {
        Value::Mac(mac)
    } else {
        Value::Text(Cow::Owned(text))
    }
}

fn unescape(escaped: char, chars: &mut impl Iterator<Item = (usize, char)>) -> Result<char, String> {
    let digits = match escaped {
        'n' => return Ok('\n'),
        't' => return Ok('\t'),
        'r' => return Ok('\r'),
        'a' => return Ok('\x07'),
        'b' => return Ok('\x08'),
        'f' => return Ok('\x0c'),
        'v' => return Ok('\x0b'),
        '\\' | '"' | '\'' => return Ok(escaped),
        '0'..='7' => {
            let rest: String = chars.take(2).map(|(_, c)| c).collect();
            let value = u32::from_str_radix(&format!("{escaped}{rest}"), 8).ok().filter(|_| rest.len() == 2);
            return value.and_then(char::from_u32).ok_or_else(|| format!("`\\{escaped}{rest}` is no character"));
        }
        'x' => 2,
        'u' => 4,
        'U' => 8,
        other => return Err(format!("`\\{other}` is no escape")),
    };
    let code: String = chars.take(digits).map(|(_, c)| c).collect();
    let value = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
    value.ok_or_else(|| format!("`\\{escaped}{code}` is no character"))
}

fn regex(text: &str, quote: char) -> Result<(usize, Token), String> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => {
                let built = RegexBuilder::new(&text[1..at]).size_limit(REGEX_BYTES_MAX).build();
                let regex = built.map_err(|e| format!("this regular expression cannot be used: {e}"))?;
                return Ok((at + 1, Token::Literal(Value::Regex(regex))));
            }
            _ => {}
        }
    }
    Err(format!("this regular expression has no closing `{quote}`"))
}
