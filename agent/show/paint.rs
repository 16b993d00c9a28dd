//! Colours, where they are wanted.

use std::{env, io::IsTerminal as _};

use crate::cli::ColorWhen;

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

/// What a piece of text is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    /// A title.
    Title,
    /// A name: of a header field, of a member.
    Name,
    /// Text in JSON.
    Text,
    /// Numbers and words in JSON.
    Value,
    /// What went well.
    Good,
    /// What did not.
    Bad,
    /// Our own remarks.
    Note,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Title => "1",
            Self::Name => "36",
            Self::Text => "32",
            Self::Value => "33",
            Self::Good => "1;32",
            Self::Bad => "1;31",
            Self::Note => "2",
        }
    }
}

impl Paint {
    /// A terminal gets colours, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(super) fn of(when: ColorWhen) -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        Self(match when {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => {
                let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
                std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
            }
        })
    }

    #[cfg(test)]
    pub(super) const fn none() -> Self {
        Self(false)
    }

    /// The text, which is fit to be printed, in its colour.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }
}
