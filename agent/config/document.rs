//! A YAML document with the place of each key, so that every message can name its line.

use std::{collections::HashMap, fmt, sync::LazyLock};

use saphyr_parser::{Event, Parser, Span};
use serde::de::DeserializeOwned;

use super::{schema, written::Written};

/// Something to tell the user of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File.
    pub file: String,
    /// Line, from 1; 0 if the problem has no place.
    pub line: usize,
    /// What was found and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// A parsed document.
#[derive(Debug)]
pub struct Document {
    name: String,
    value: serde_yaml::Value,
    /// Line by path, such as `tap.filters.custom[0].exe`.
    lines: HashMap<String, usize>,
}

impl Document {
    /// Parses.
    ///
    /// # Errors
    ///
    /// The text is no YAML.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| Problem {
            file: name.to_owned(),
            line: error.location().map_or(0, |at| at.line()),
            message: format!("this is not valid YAML: {error}"),
        })?;
        let merged = value.apply_merge();
        let document = Self { name: name.to_owned(), value, lines: lines(text) };
        match merged {
            Ok(()) => Ok(document),
            Err(error) => Err(document.problem("", error.to_string())),
        }
    }

    /// A problem at a path; where the path has no line, its nearest parent's.
    #[must_use]
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let mut at = path;
        let line = loop {
            if let Some(line) = self.lines.get(at) {
                break *line;
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => break 0,
            }
        };
        let message = message.into();
        let message = if path.is_empty() { message } else { format!("{path}: {message}") };
        Problem { file: self.name.clone(), line, message }
    }

    /// The whole document as written.
    ///
    /// # Errors
    ///
    /// A value is not what its key allows.
    pub fn decode(&self, warnings: &mut Vec<Problem>) -> Result<Written, Problem> {
        if self.value.is_null() {
            return Ok(Written::default());
        }
        self.decode_part("", self.value.clone(), warnings)
    }

    /// A part of the document that stands at `path`. Unknown keys become warnings.
    ///
    /// # Errors
    ///
    /// A value is not what its key allows.
    pub fn decode_part<T: DeserializeOwned + Default>(
        &self,
        path: &str,
        value: serde_yaml::Value,
        warnings: &mut Vec<Problem>,
    ) -> Result<T, Problem> {
        if value.is_null() {
            return Ok(T::default());
        }
        let join = |inner: &str| match (path, inner) {
            ("", inner) => inner.to_owned(),
            (path, "" | ".") => path.to_owned(),
            (path, inner) if inner.starts_with('[') => format!("{path}{inner}"),
            (path, inner) => format!("{path}.{inner}"),
        };
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
        let decoded = serde_ignored::deserialize(tracked, |ignored| unknown.push(ignored.to_string()));
        let decoded = decoded.map_err(|error: serde_yaml::Error| {
            let at = join(&track.path().to_string());
            self.problem(&at, error.to_string())
        })?;
        for key in unknown {
            // serde_ignored writes `a.0.b` for what the lines call `a[0].b`, and `?` for an option.
            let at = join(&bracketed(&key));
            let (parent, name) = at.rsplit_once('.').unwrap_or(("", &at));
            let hint = nearest(name).map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
            let place = if parent.is_empty() { String::new() } else { format!(" in `{parent}`") };
            let mut problem = self.problem(&at, "");
            problem.message = format!("unknown key `{name}`{place} is ignored{hint}");
            warnings.push(problem);
        }
        Ok(decoded)
    }
}

fn bracketed(path: &str) -> String {
    path.split('.').filter(|part| *part != "?").fold(String::new(), |all, part| match part.parse::<usize>() {
        Ok(index) => format!("{all}[{index}]"),
        Err(_) if all.is_empty() => part.to_owned(),
        Err(_) => format!("{all}.{part}"),
    })
}

/// The known key that is written most alike, if one is close.
fn nearest(name: &str) -> Option<&'static str> {
    const CLOSE: f64 = 0.8;
    static KEYS: LazyLock<Vec<String>> = LazyLock::new(schema::keys);
    let score = |known: &&'static str| strsim::jaro_winkler(name, known);
    let best = KEYS.iter().map(String::as_str).max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(&best) >= CLOSE).then_some(best)
}

/// Walks the events of a parser that knows places, and notes the line of each key and item.
fn lines(text: &str) -> HashMap<String, usize> {
    enum Open {
        Map { path: String, key: Option<String> },
        List { path: String, next: usize },
    }
    let mut lines = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut note = |path: &str, span: Span| {
        lines.entry(path.to_owned()).or_insert(span.start.line());
    };
    // The path of the value that begins now, and whether a scalar is a key instead.
    let enter = |open: &mut Vec<Open>| -> String {
        match open.last_mut() {
            Some(Open::Map { path, key }) => {
                let key = key.take().unwrap_or_default();
                if path.is_empty() { key } else { format!("{path}.{key}") }
            }
            Some(Open::List { path, next }) => {
                *next += 1;
                format!("{path}[{}]", *next - 1)
            }
            None => String::new(),
        }
    };
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { return lines };
        match event {
            Event::MappingStart(..) => {
                let path = enter(&mut open);
                note(&path, span);
                open.push(Open::Map { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = enter(&mut open);
                note(&path, span);
                open.push(Open::List { path, next: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
            }
            Event::Scalar(text, ..) => match open.last_mut() {
                Some(Open::Map { path, key: key @ None }) => {
                    let at = if path.is_empty() { text.to_string() } else { format!("{path}.{text}") };
                    note(&at, span);
                    *key = Some(text.into_owned());
                }
                _ => {
                    let path = enter(&mut open);
                    note(&path, span);
                }
            },
            Event::Alias(_) => {
                enter(&mut open);
            }
            _ => {}
        }
    }
    lines
}
