//! Where each key and value of a document stands, and how it is written there.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Places by path, such as `tap.filters.custom[0].exe`.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: HashMap<String, Place>,
    /// Line of a second document of the file.
    pub(super) second_document: Option<usize>,
}

#[derive(Debug)]
struct Place {
    line: usize,
    /// A scalar without quotes, as it is written.
    text: Option<String>,
}

/// A collection whose end has not come.
enum Open {
    Map { path: String, key: Option<String> },
    List { path: String, next: usize },
}

impl Places {
    /// Walks the events of a parser that knows places, as far as it gets.
    pub(super) fn of(text: &str) -> Self {
        let mut all = Self::default();
        let mut open: Vec<Open> = Vec::new();
        let mut ended = false;
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            match event {
                Event::DocumentEnd => ended = true,
                Event::DocumentStart(_) if ended => {
                    all.second_document = Some(span.start.line());
                    break;
                }
                _ => all.take(event, span, &mut open),
            }
        }
        all
    }

    fn take(&mut self, event: Event<'_>, span: Span, open: &mut Vec<Open>) {
        match event {
            Event::MappingStart(..) => {
                let path = enter(open);
                self.note(&path, span, None);
                open.push(Open::Map { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = enter(open);
                self.note(&path, span, None);
                open.push(Open::List { path, next: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
            }
            Event::Scalar(text, style, ..) => match open.last_mut() {
                Some(Open::Map { path, key: key @ None }) => {
                    self.note(&below(path, &text), span, None);
                    *key = Some(text.into_owned());
                }
                _ => {
                    let path = enter(open);
                    self.note(&path, span, (style == ScalarStyle::Plain).then(|| text.into_owned()));
                }
            },
            Event::Alias(_) => {
                enter(open);
            }
            _ => {}
        }
    }

    /// The first place of a path is its line; a scalar has its text behind it.
    fn note(&mut self, path: &str, span: Span, text: Option<String>) {
        let place = self.places.entry(path.to_owned()).or_insert(Place { line: span.start.line(), text: None });
        if place.text.is_none() {
            place.text = text;
        }
    }

    /// Line, from 1.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        self.places.get(path).map(|place| place.line)
    }

    /// A scalar without quotes, as it is written.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.places.get(path)?.text.as_deref()
    }
}

/// The path of the value that begins now.
fn enter(open: &mut [Open]) -> String {
    match open.last_mut() {
        Some(Open::Map { path, key }) => below(path, &key.take().unwrap_or_default()),
        Some(Open::List { path, next }) => {
            *next += 1;
            format!("{path}[{}]", *next - 1)
        }
        None => String::new(),
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
