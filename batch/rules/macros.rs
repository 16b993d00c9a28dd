//! Macros by name, and the expressions that are compiled with them.

use std::{collections::HashMap, sync::Arc};

use crate::{
    expression::{Expression, Node, Size},
    functions::Function,
    lexer::{self, LexError, Token},
    parser::{DEPTH_MAX, ParseError, Parser},
};

/// Length of an expression at most, in bytes.
const LENGTH_MAX: usize = 16 * 1024;
/// Macros at most.
const MACROS_MAX: usize = 1024;

/// Macros by name; compiles the rules that use them.
#[derive(Debug, Default)]
pub struct Rules {
    macros: HashMap<String, Macro>,
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) root: Arc<Node>,
    pub(crate) size: Size,
}

impl Rules {
    /// Takes the macros in any order.
    ///
    /// # Errors
    ///
    /// Name and error of the first macro that does not parse, is named twice or like a function, or calls itself.
    pub fn new<'a>(macros: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, (String, ParseError)> {
        let mut sources: HashMap<&str, &str> = HashMap::new();
        for (name, text) in macros {
            let clash = if !is_name(name) {
                "is no name: letters, digits and `_`, not a digit first"
            } else if Function::named(name).is_some() {
                "has the name of a function"
            } else if sources.insert(name, text).is_some() {
                "is defined twice"
            } else if sources.len() > MACROS_MAX {
                "is one too many"
            } else {
                continue;
            };
            return Err((name.to_owned(), ParseError::new(text, 0, format!("the macro `{name}` {clash}"))));
        }
        let mut rules = Self::default();
        let mut names: Vec<&str> = sources.keys().copied().collect();
        names.sort_unstable();
        for name in names {
            rules.define(name, &sources, &mut Vec::new()).map_err(|error| (name.to_owned(), error))?;
        }
        Ok(rules)
    }

    fn define<'a>(
        &mut self,
        name: &'a str,
        sources: &HashMap<&'a str, &'a str>,
        open: &mut Vec<&'a str>,
    ) -> Result<(), ParseError> {
        let text = sources[name];
        if open.contains(&name) || open.len() > DEPTH_MAX {
            let circle = open.join("()` calls `");
            let why = if open.contains(&name) { "macros cannot call themselves" } else { "this is too deep" };
            return Err(ParseError::new(text, 0, format!("`{circle}()` calls `{name}()`: {why}")));
        }
        if self.macros.contains_key(name) {
            return Ok(());
        }
        open.push(name);
        for called in called_functions(text) {
            if let Some((&called, _)) = sources.get_key_value(called.as_str()) {
                self.define(called, sources, open)?;
            }
        }
        open.pop();
        let Expression { root, size, .. } = self.compile(text)?;
        self.macros.insert(name.to_owned(), Macro { root: Arc::new(root), size });
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Macro> {
        self.macros.get(name)
    }

    /// Names of the macros, in the order of the alphabet.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.macros.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Parses and checks an expression.
    ///
    /// # Errors
    ///
    /// The place and what is wrong there.
    pub fn compile(&self, text: &str) -> Result<Expression, ParseError> {
        if text.len() > LENGTH_MAX {
            return Err(ParseError::new("", 0, format!("the expression is longer than {LENGTH_MAX} bytes")));
        }
        let tokens = lexer::tokens(text).map_err(|LexError { at, message }| ParseError::new(text, at, message))?;
        Parser::new(self, text, tokens).parse()
    }
}

fn is_name(name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| part(c) && !c.is_ascii_digit()) && name.chars().all(part)
}

fn called_functions(text: &str) -> Vec<String> {
    if text.len() > LENGTH_MAX {
        return Vec::new();
    }
    let tokens = lexer::tokens(text).unwrap_or_default();
    let name = |(_, token)| if let Token::Function(name) = token { Some(name) } else { None };
    tokens.into_iter().filter_map(name).collect()
}
