//! A YAML document with the place of each key, so that every message can name its line.

use std::{fmt, sync::LazyLock};

use serde::{Deserialize as _, de::DeserializeOwned};
use serde_path_to_error::{Path, Segment};
use serde_yaml::Value;

use super::{places::Places, schema, written::Written};

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

/// Every key that has a meaning somewhere.
static KEYS: LazyLock<Vec<String>> = LazyLock::new(schema::keys);

/// A parsed document.
#[derive(Debug)]
pub struct Document {
    name: String,
    value: Value,
    places: Places,
}

impl Document {
    /// Parses.
    ///
    /// # Errors
    ///
    /// The text is no YAML.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        // Of several documents in one file the first is the configuration.
        let first = serde_yaml::Deserializer::from_str(text).next();
        let mut value = first.map_or(Ok(Value::Null), Value::deserialize).map_err(|error| Problem {
            file: name.to_owned(),
            line: error.location().map_or(0, |at| at.line()),
            message: format!("this is not valid YAML: {error}"),
        })?;
        let merged = value.apply_merge();
        name_keys(&mut value, 0);
        let document = Self { name: name.to_owned(), value, places: Places::of(text) };
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
            if let Some(line) = self.places.line(at) {
                break line;
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
        if let Some(line) = self.places.second_document {
            let message = "a second document begins here; only the first is read".to_owned();
            warnings.push(Problem { file: self.name.clone(), line, message });
        }
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
        value: Value,
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
        let mut value = value;
        let (decoded, unknown) = loop {
            let mut unknown = Vec::new();
            let mut track = serde_path_to_error::Track::new();
            let tracked = serde_path_to_error::Deserializer::new(value.clone(), &mut track);
            let decoded = serde_ignored::deserialize(tracked, |ignored| unknown.push(ignored.to_string()));
            let error: serde_yaml::Error = match decoded {
                Ok(decoded) => break (decoded, unknown),
                Err(error) => error,
            };
            let place = track.path();
            let at = join(&place.to_string());
            let message = error.to_string();
            // Where a text belongs, `404` and `1.0` are texts. Each time there is one scalar less that is not.
            let rest = message.ends_with("expected a string").then(|| self.places.text(&at));
            if !rest.is_some_and(|written| make_text(&mut value, &place, written)) {
                return Err(self.problem(&at, message));
            }
        };
        for key in unknown {
            // serde_ignored writes `a.0.b` for what the lines call `a[0].b`, and `?` for an option.
            let at = join(&bracketed(&key));
            let (parent, name) = at.rsplit_once('.').unwrap_or(("", &at));
            let hint = nearest(name, KEYS.iter().map(String::as_str))
                .filter(|known| *known != name)
                .map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
            let place = if parent.is_empty() { String::new() } else { format!(" in `{parent}`") };
            let mut problem = self.problem(&at, "");
            problem.message = format!("unknown key `{name}`{place} is ignored{hint}");
            warnings.push(problem);
        }
        Ok(decoded)
    }
}

/// Turns keys that are numbers or truth values into texts, as far down as files can reach.
fn name_keys(value: &mut Value, depth: usize) {
    const DEPTH_MAX: usize = 128;
    match value {
        _ if depth > DEPTH_MAX => {}
        Value::Mapping(map) => {
            for (key, mut value) in std::mem::take(map) {
                name_keys(&mut value, depth + 1);
                map.insert(text_of(&key).map_or(key, Value::String), value);
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| name_keys(item, depth + 1)),
        _ => {}
    }
}

fn text_of(scalar: &Value) -> Option<String> {
    match scalar {
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Replaces the number or truth value at a place by its text. `false`: there is none.
fn make_text(value: &mut Value, place: &Path, written: Option<&str>) -> bool {
    let found = place.iter().try_fold(value, |value, step| match step {
        Segment::Seq { index } => value.get_mut(index),
        Segment::Map { key } => value.get_mut(key.as_str()),
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    });
    let Some(scalar) = found else { return false };
    let Some(text) = text_of(scalar) else { return false };
    *scalar = Value::String(written.map_or(text, ToOwned::to_owned));
    true
}

fn bracketed(path: &str) -> String {
    path.split('.').filter(|part| *part != "?").fold(String::new(), |all, part| match part.parse::<usize>() {
        Ok(index) => format!("{all}[{index}]"),
        Err(_) if all.is_empty() => part.to_owned(),
        Err(_) => format!("{all}.{part}"),
    })
}

/// The known name that is written most alike, if one is close.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    const CLOSE: f64 = 0.8;
    let score = |known: &&'static str| strsim::jaro_winkler(name, known);
    let best = known.max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(&best) >= CLOSE).then_some(best)
}
